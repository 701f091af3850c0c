"""The conversation of a callout: EHLO, MAIL FROM:<>, RCPT, RSET, QUIT (RFC 5321 §3.3). Never DATA.

Guarantees: whatever the other side does, of a reply at most `MAX_LINES` lines of `MAX_LINE_OCTETS`
are read, and nothing is raised but `Broken`. Only the answer to RCPT can say that an address does
not exist; a host that refuses us, our name or the null sender says nothing about the address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from enum import StrEnum

from services.common.mail.address import Mailbox
from services.common.mail.reply import Reply, parse_reply

MAX_LINES = 100
MAX_LINE_OCTETS = 2048
"""RFC 5321 §4.5.3.1.5 allows 512; some say more."""

QUIT_SECONDS = 1.0

_LINE = re.compile(rb"[2-5][0-9]{2}([ -]).*|[2-5][0-9]{2}", re.DOTALL)

# RFC 3463 §3.8 and §3.6: about security and policy, or about the protocol, not about the mailbox.
_ABOUT_US = ("5.7.", "5.5.", "5.3.", "5.4.")


class Broken(Exception):
    """The conversation came to nothing. The text is for evidence."""


class Answer(StrEnum):
    """What an exchange says about an address."""

    TAKES = "takes"
    REFUSES = "refuses"
    DOES_NOT_SAY = "does not say"


@dataclass(frozen=True, slots=True)
class Said:
    """The answer, and the reply that it was given with."""

    answer: Answer
    command: str
    reply: Reply


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: Mailbox, *, hostname: str
) -> Said:
    """Ask over an open connection. Raises `Broken`; the connection is the caller's to close."""
    try:
        return await _ask(_Wire(reader, writer), sender, hostname)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Broken(f"the conversation broke off ({type(error).__name__})") from error


async def _ask(wire: _Wire, sender: Mailbox, hostname: str) -> Said:
    greeting = await wire.read()
    if not greeting.is_success:
        return Said(Answer.DOES_NOT_SAY, "greeting", greeting)
    hello, keywords = await wire.hello(hostname)
    if not hello.is_success:
        return Said(Answer.DOES_NOT_SAY, "EHLO", hello)
    parameters = ""
    if sender.needs_smtputf8:
        if "SMTPUTF8" not in keywords:
            return Said(Answer.DOES_NOT_SAY, "EHLO", hello)
        parameters = " SMTPUTF8"
    null = await wire.say(f"MAIL FROM:<>{parameters}")
    if not null.is_success:
        return Said(Answer.DOES_NOT_SAY, "MAIL", null)
    said = _judged(await wire.say(f"RCPT TO:<{sender}>"))
    with contextlib.suppress(OSError, TimeoutError, Broken, asyncio.IncompleteReadError):
        async with asyncio.timeout(QUIT_SECONDS):
            await wire.say("RSET")
            await wire.say("QUIT")
    return said


def _judged(reply: Reply) -> Said:
    if reply.is_success:
        return Said(Answer.TAKES, "RCPT", reply)
    if reply.is_permanent and not reply.enhanced.startswith(_ABOUT_US):
        return Said(Answer.REFUSES, "RCPT", reply)
    return Said(Answer.DOES_NOT_SAY, "RCPT", reply)


class _Wire:
    """Commands out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hello(self, hostname: str) -> tuple[Reply, frozenset[str]]:
        """EHLO, or HELO for whoever does not know it; the reply and the keywords."""
        lines = await self._exchange(f"EHLO {hostname}")
        reply = parse_reply(lines)
        if reply.is_permanent:
            return await self.say(f"HELO {hostname}"), frozenset()
        words = (line[4:].split(maxsplit=1) for line in lines[1:])
        return reply, frozenset(
            word[0].decode("ascii", "replace").upper() for word in words if word
        )

    async def say(self, command: str) -> Reply:
        return parse_reply(await self._exchange(command))

    async def read(self) -> Reply:
        return parse_reply(await self._read_lines())

    async def _exchange(self, command: str) -> list[bytes]:
        self._writer.write(command.encode() + b"\r\n")
        await self._writer.drain()
        return await self._read_lines()

    async def _read_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        while len(lines) < MAX_LINES:
            line = (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")
            match = _LINE.fullmatch(line)
            if match is None:
                raise Broken("the other side does not speak SMTP")
            lines.append(line)
            if match[1] != b"-":
                return lines
        raise Broken(f"a reply of more than {MAX_LINES} lines")
