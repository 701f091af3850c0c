"""While others drip and flood, a normal client is served.

The ingress is a process of its own here; in one event loop with the attackers it would be measured
together with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.ingress_process import running_process
from tests.support.nats_server import NatsServer
from tests.support.scripted_policy import ScriptedPolicy, serve
from tests.support.smtp_client import Client, connected

_TEXT = b"Subject: x\r\n\r\ntext\r\n"
_ATTACKERS = 40
_SERVED_WITHIN_S = 2.0


async def _drip(client: Client) -> None:
    await client.begin()
    while True:
        client.send(b"x")
        await asyncio.sleep(0.02)


async def _flood_of_commands(client: Client) -> None:
    while True:
        client.send(b"NOOP\r\n" * 500)
        await client.writer.drain()
        await asyncio.sleep(0)


async def _flood_of_content(client: Client) -> None:
    await client.begin()
    while True:
        client.send(b"x" * 60_000 + b"\r\n")
        await client.writer.drain()
        await asyncio.sleep(0)


async def _attack(port: int, behave: Callable[[Client], Awaitable[None]]) -> None:
    """Behave like that, again and again, whatever the server does about it."""
    while True:
        with contextlib.suppress(OSError, AssertionError, TimeoutError):
            async with connected(port) as client:
                await client.hello()
                await behave(client)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behave", [_drip, _flood_of_commands, _flood_of_content])
async def test_a_normal_client_is_served(
    behave: Callable[[Client], Awaitable[None]], tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as ingress,
    ):
        attacks = [asyncio.create_task(_attack(ingress.port, behave)) for _ in range(_ATTACKERS)]
        try:
            await asyncio.sleep(0.5)
            for _ in range(3):
                started = time.monotonic()
                async with connected(ingress.port) as client:
                    await client.hello()
                    assert (await client.mail(_TEXT)).startswith("250 ")
                seconds = time.monotonic() - started
                assert seconds < _SERVED_WITHIN_S
        finally:
            for attack in attacks:
                attack.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
