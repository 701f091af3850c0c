"""Conversations with an SMTP server as text files: what the client says, what it must hear.

    # why this matters                      a comment
    @ listener: submissions                 settings before the conversation, in YAML; see below
    C: EHLO client.example.net              the client sends this and CRLF
    C! HELO a\\r\\nHELO b\\r\\n              the client sends exactly this, with \\r \\n \\0 \\xff
    S: 250-mx.example.test                  a line of the reply begins with this
    S~ 250 2\\.0\\.0 Ok: queued as \\S+       a line of the reply, as a regular expression
    S* 250                                  a whole reply with this code, however many lines
    TLS                                     the client does the handshake
    SHUT                                    the client closes its side
    EOF                                     the server closes its side
    QUEUED 2                                so many records are in the queue now

Settings: `listener` (mx), `config` (laid over the configuration), `refuse` (recipient: reply),
`deliver_to` (recipient: addresses), `rules` (recipient: name of its rules), `message` (the reply
after the content), `policy` (the status code of every call), `lockstep` (true: the client waits for
each reply; a conversation without it is also played with all that the client says in one segment).

The client waits for replies where the file says so; lines of the client that follow each other are
one segment. Played with `Cut.BYTES` every octet is a segment of its own.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.support.edge import RunningEdge
from tests.support.scripted_policy import refusal

_REPLY_S = 30.0
_WAITS = ("S:", "S~", "S*", "TLS", "SHUT", "EOF", "QUEUED")


class Cut(StrEnum):
    """How the client's octets are cut into segments."""

    LINES = "lines"
    BYTES = "bytes"
    ALL = "one segment"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a conversation."""

    number: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A file, read."""

    name: str
    settings: Mapping[str, Any]
    steps: tuple[Step, ...]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The ways in which it can be played."""
        lockstep = self.settings.get("lockstep") or any(
            step.kind in ("TLS", "SHUT") for step in self.steps
        )
        return (Cut.LINES, Cut.BYTES) if lockstep else (Cut.LINES, Cut.BYTES, Cut.ALL)


def read(path: Path) -> Conversation:
    """Read a file. Raises ValueError for a line that is none of the above."""
    settings: list[str] = []
    steps = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        kind, _, text = line.partition(" ")
        if not line.strip() or kind == "#":
            continue
        if kind == "@":
            settings.append(text)
        elif kind in ("C:", "C!", *_WAITS):
            steps.append(Step(number, kind, text))
        else:
            raise ValueError(f"{path.name}:{number}: {kind!r} is nothing that can be done")
    return Conversation(path.stem, yaml.safe_load("\n".join(settings)) or {}, tuple(steps))


def prepare(conversation: Conversation, edge: RunningEdge) -> None:
    """Apply the settings."""
    settings = conversation.settings
    edge.configure(settings.get("config", {}))
    for recipient, reply in settings.get("refuse", {}).items():
        edge.policy.recipients[recipient] = refusal(*_reply(reply))
    edge.policy.deliver_to.update(settings.get("deliver_to", {}))
    edge.policy.rules.update(settings.get("rules", {}))
    if "message" in settings:
        edge.policy.message = refusal(*_reply(settings["message"]))
    if "policy" in settings:
        edge.policy.failure = grpc.StatusCode[settings["policy"]]


def _reply(text: str) -> tuple[int, str, str]:
    code, enhanced, words = text.split(" ", 2)
    return int(code), enhanced, words


async def play(conversation: Conversation, edge: RunningEdge, cut: Cut) -> None:
    """Hold the conversation; an AssertionError names the line of the file."""
    listener = conversation.settings.get("listener", "mx")
    tls = _client_tls() if listener == "submissions" else None
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port(listener), ssl=tls)
    player = _Player(conversation, edge, reader, writer, cut)
    try:
        await player.play()
    finally:
        writer.transport.abort()


class _Player:
    def __init__(
        self,
        conversation: Conversation,
        edge: RunningEdge,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cut: Cut,
    ) -> None:
        self._conversation = conversation
        self._edge = edge
        self._reader = reader
        self._writer = writer
        self._cut = cut
        self._unsent = b""

    async def play(self) -> None:
        if self._cut is Cut.ALL:
            self._unsent = b"".join(map(_octets, self._conversation.steps))
            await self._send()
        for step in self._conversation.steps:
            if step.kind in ("C:", "C!"):
                if self._cut is not Cut.ALL:
                    self._unsent += _octets(step)
                continue
            await self._send()
            where = f"{self._conversation.name}:{step.number}: {step.kind} {step.text}"
            try:
                async with asyncio.timeout(_REPLY_S):
                    await self._wait(step, where)
            except TimeoutError:
                raise AssertionError(f"{where}: nothing came") from None
        await self._send()

    async def _send(self) -> None:
        unsent, self._unsent = self._unsent, b""
        if not unsent:
            return
        if self._cut is Cut.BYTES:
            for octet in unsent:
                self._writer.write(bytes((octet,)))
                await self._writer.drain()
                # The server runs in this loop: it sees each octet before the next one is sent.
                await asyncio.sleep(0)
        else:
            self._writer.write(unsent)

    async def _wait(self, step: Step, where: str) -> None:
        match step.kind:
            case "S:":
                line = await self._line()
                assert line.startswith(step.text), f"{where}: got {line!r}"
            case "S~":
                line = await self._line()
                assert re.fullmatch(step.text, line), f"{where}: got {line!r}"
            case "S*":
                line = await self._line()
                while line[3:4] == "-":
                    assert line.startswith(step.text), f"{where}: got {line!r}"
                    line = await self._line()
                assert line.startswith(step.text), f"{where}: got {line!r}"
            case "TLS":
                await self._writer.start_tls(_client_tls())
            case "SHUT":
                self._writer.write_eof()
            case "EOF":
                rest = await self._rest()
                assert not rest, f"{where}: got {rest!r}"
            case _:
                count = len(await self._edge.mails())
                assert count == int(step.text), f"{where}: there are {count}"

    async def _line(self) -> str:
        return (await self._reader.readline()).decode().removesuffix("\r\n")

    async def _rest(self) -> bytes:
        try:
            return await self._reader.read()
        except ConnectionResetError:
            return b""


def _octets(step: Step) -> bytes:
    match step.kind:
        case "C:":
            return f"{step.text}\r\n".encode()
        case "C!":
            return codecs.escape_decode(step.text.encode())[0]
        case _:
            return b""


def _client_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
