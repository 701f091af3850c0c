"""More large mail at once than there is room for: some is taken, the rest put off, nobody waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, running_edge
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected

_LINE = b"0123456789" * 7 + b"\r\n"
_LARGE = b"Subject: x\r\n\r\n" + _LINE * 14_000  # 1 MB
_SESSIONS = 40


async def _send(edge: RunningEdge) -> str:
    async with connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        for start in range(0, len(_LARGE), 65_536):
            client.send(_LARGE[start : start + 65_536])
            await client.writer.drain()
        return await client.content(b"")


@pytest.mark.parametrize(
    "limits", [{"large_contents": 2}, {"content_memory": "4MiB", "large_contents": 1000}]
)
async def test_everybody_is_answered(
    limits: dict[str, object],
    tmp_path: Path,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.ingress.capacity.LARGE_PATIENCE_S", 0.05)
    async with running_edge(tmp_path, nats_server, {"smtp": {"limits": limits}}) as edge:
        replies = Counter(
            reply[:9] for reply in await asyncio.gather(*(_send(edge) for _ in range(_SESSIONS)))
        )
        assert replies.keys() == {"250 2.0.0", "452 4.3.1"}, replies
        await edge.cleaner.drained()
        mails = await edge.mails()
        assert len(mails) == replies["250 2.0.0"]
        # Nothing is left of the others, neither in the store nor of the room that they took.
        assert await edge.chunks() == sum(mail.record.content_reference.chunks for mail in mails)
        for _ in range(3):
            assert (await _send(edge)).startswith("250 ")
