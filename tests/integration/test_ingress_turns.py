"""A client that pipelines thousands of small commands: everybody else has turns in between."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from services.ingress.command_loop import (
    MAX_RECIPIENTS_TOGETHER,
    REPLIES,
    REPLIES_IN_A_ROW,
)
from tests.support.edge import running_edge
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected

_COMMANDS = 2000


class _Onlooker:
    """Something else in the same loop: how many replies there were from one turn to the next."""

    def __init__(self, verb: str) -> None:
        self._counter = REPLIES.labels(verb, "250")
        self.most = 0

    async def look(self) -> None:
        """Look on, until cancelled."""
        seen = self._replies()
        while True:
            await asyncio.sleep(0)
            seen, before = self._replies(), seen
            self.most = max(self.most, seen - before)

    def _replies(self) -> int:
        return int(self._counter._value.get())


@pytest.mark.parametrize(
    ("verb", "command", "together"),
    [
        ("NOOP", b"NOOP\r\n", 1),
        ("BDAT", b"BDAT 1\r\nx", 1),
        ("RCPT", b"RCPT TO:<you@example.test>\r\n", MAX_RECIPIENTS_TOGETHER),
    ],
    ids=["NOOP", "BDAT", "RCPT"],
)
async def test_a_client_that_pipelines_much_takes_turns_with_others(
    verb: str, command: bytes, together: int, tmp_path: Path, nats_server: NatsServer
) -> None:
    limits = {"smtp": {"limits": {"idle_commands": 10 * _COMMANDS}}}
    async with (
        running_edge(tmp_path, nats_server, limits) as edge,
        connected(edge.port()) as client,
    ):
        await client.hello()
        assert (await client.say("MAIL FROM:<sender@example.net>")).startswith("250 ")
        assert (await client.say("RCPT TO:<you@example.test>")).startswith("250 ")
        onlooker = _Onlooker(verb)
        looking = asyncio.create_task(onlooker.look())
        client.send(command * _COMMANDS)
        for _ in range(_COMMANDS):
            assert (await client.reply()).startswith("250 ")
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        assert 0 < onlooker.most < REPLIES_IN_A_ROW + together
