"""While others drip and flood, a normal client is served."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.attackers import KINDS, OVER_TLS, attacked
from tests.support.ingress_process import running_process
from tests.support.nats_server import NatsServer
from tests.support.scripted_policy import ScriptedPolicy, serve
from tests.support.smtp_client import connected
from tests.support.soon import soon

_TEXT = b"Subject: x\r\n\r\ntext\r\n"
_SERVED_WITHIN_S = 2.0


@pytest.mark.timed
@pytest.mark.parametrize("kind", KINDS)
async def test_a_normal_client_is_served(
    kind: str, tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as ingress,
        attacked(kind, ingress.submissions_port if kind in OVER_TLS else ingress.port),
    ):

        async def attempt() -> float:
            started = time.monotonic()
            async with connected(ingress.port) as client:
                await client.hello()
                assert (await client.mail(_TEXT)).startswith("250 ")
            return time.monotonic() - started

        for _ in range(5):
            await soon(attempt, seconds=_SERVED_WITHIN_S)
