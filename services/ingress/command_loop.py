"""One session from greeting to goodbye: reads commands, has the dialogue answer, counts mistakes.

RFC 5321 §3, §4.5.3; RFC 2920 (replies to pipelined commands leave together); RFC 3207; RFC 4954.
Guarantees: a fault of ours is `451 4.3.0` with a fixed text, and where the stream's position is no
longer known (within a content) the session ends rather than take content for commands. Lines end in
CRLF; a line with any other CR, LF or NUL is no command. Nothing that a client typed is logged
unless it was understood, so that a password sent in the wrong place is not.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from prometheus_client import Counter

from services.common.log import ERROR, event
from services.common.mail.reply import INTERNAL_ERROR, SHUTTING_DOWN, UNKNOWN_COMMAND, Reply
from services.ingress.dialogue import Dialogue
from services.ingress.dot_parser import DotParser
from services.ingress.input import EndOfInput, LineTooLong
from services.ingress.intake import Intake
from services.ingress.replies import (
    AUTH_TOO_LONG,
    LINE_END_WRONG,
    LINE_TOO_LONG,
    NOT_IMPLEMENTED,
    NOT_SMTP,
    NOT_UTF8,
    READY_FOR_TLS,
    TOO_MANY_ERRORS,
    TOO_SLOW,
    wire,
)
from services.ingress.sasl import MAX_RESPONSE_OCTETS, SaslError
from services.ingress.wire import SessionEnd, Wire

_log = logging.getLogger(__name__)

REPLIES = Counter(
    "gatepost_ingress_replies_total",
    "Replies, by command and code. CONTENT is the end of a content, `other` what is no command.",
    ["command", "code"],
)

COMMAND_OCTETS: Final = 512
"""RFC 5321 §4.5.3.1.4, with the CRLF."""

PARAMETER_COMMAND_OCTETS: Final = 2048
"""MAIL and RCPT: SIZE, BODY, AUTH=, ENVID and ORCPT add up to some 1,300 octets."""

RATE_GRACE_S: Final = 60.0
"""The rate of a content is looked at after this time."""

_COMMAND_LIMITS: Final[Mapping[str, int]] = {
    "AUTH": MAX_RESPONSE_OCTETS,
    "MAIL": PARAMETER_COMMAND_OCTETS,
    "RCPT": PARAMETER_COMMAND_OCTETS,
}
_SIMPLE: Final[Mapping[str, Callable[[Dialogue, str], Reply | bytes]]] = {
    "HELO": Dialogue.helo,
    "EHLO": Dialogue.ehlo,
    "MAIL": Dialogue.mail,
    "RSET": Dialogue.rset,
    "NOOP": Dialogue.noop,
    "VRFY": Dialogue.vrfy,
    "HELP": Dialogue.help,
}
_NOT_IMPLEMENTED: Final = frozenset({"EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML"})
_OF_OTHER_PROTOCOLS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PRI", "SSH-2.0"}
)


class CommandLoop:
    """The commands of one session. `is_draining` tells whether the process is about to stop."""

    def __init__(self, wire: Wire, dialogue: Dialogue, *, is_draining: Callable[[], bool]) -> None:
        self._wire = wire
        self._dialogue = dialogue
        self._is_draining = is_draining
        self._errors = 0
        self._recipient_errors = 0
        self._special: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "RCPT": self._rcpt,
            "DATA": self._data,
            "AUTH": self._auth,
            "STARTTLS": self._starttls,
            "QUIT": self._quit,
        }

    async def run(self) -> None:
        """Greet, and answer until the session ends with `SessionEnd` or `EndOfInput`."""
        self._wire.send(f"220 {self._dialogue.config.smtp.hostname} ESMTP Gatepost\r\n".encode())
        while True:
            if self._is_draining() and self._dialogue.transaction is None:
                raise SessionEnd("drained", SHUTTING_DOWN)
            await self._next_command()

    async def _next_command(self) -> None:
        try:
            line = await self._wire.command_line()
        except LineTooLong as error:
            if error.is_endless:
                raise SessionEnd("errors", LINE_TOO_LONG) from error
            self._reply("", LINE_TOO_LONG)
            return
        if line[0] < 0x20 and line[0] not in b"\r\n\t":
            # A TLS handshake on a plain port, or something worse.
            raise SessionEnd("foreign", NOT_SMTP)
        if not is_proper_line(line):
            self._reply("", LINE_END_WRONG)
            return
        try:
            verb, _, argument = line.decode("utf-8").rstrip().partition(" ")
        except UnicodeDecodeError:
            self._reply("", NOT_UTF8)
            return
        verb = verb.upper()
        if len(line) > _COMMAND_LIMITS.get(verb, COMMAND_OCTETS):
            self._reply("", LINE_TOO_LONG)
            return
        await self._command(verb, argument.strip())

    async def _command(self, verb: str, argument: str) -> None:
        try:
            simple = _SIMPLE.get(verb)
            if simple is not None:
                self._reply(verb, simple(self._dialogue, argument))
            elif (special := self._special.get(verb)) is not None:
                await special(argument)
            elif verb in _OF_OTHER_PROTOCOLS:
                raise SessionEnd("foreign", NOT_SMTP)
            else:
                self._reply("", NOT_IMPLEMENTED if verb in _NOT_IMPLEMENTED else UNKNOWN_COMMAND)
        except (SessionEnd, EndOfInput, ConnectionError, ssl.SSLError):
            raise
        except Exception:  # noqa: BLE001 - a fault of ours is not the client's: it may try again
            event(_log, ERROR, "command failed", command=verb, exc_info=True)
            self._dialogue.reset()
            self._reply(verb, INTERNAL_ERROR)

    # --- replies --------------------------------------------------------------------------------

    def _reply(self, verb: str, reply: Reply | bytes) -> None:
        if isinstance(reply, bytes):
            self._wire.send(reply)
            REPLIES.labels(verb, "250").inc()
            return
        self._wire.send(wire(reply))
        REPLIES.labels(verb or "other", str(reply.code)).inc()
        if reply.code == 421:
            raise SessionEnd("errors")
        if reply.is_permanent and verb != "CONTENT":
            self._count_error(verb)

    def _count_error(self, verb: str) -> None:
        limits = self._dialogue.config.smtp.limits
        if verb == "RCPT":
            self._recipient_errors += 1
        else:
            self._errors += 1
        if self._errors >= limits.errors or self._recipient_errors >= limits.recipient_errors:
            raise SessionEnd("errors", TOO_MANY_ERRORS)

    # --- commands that wait for somebody --------------------------------------------------------

    async def _rcpt(self, argument: str) -> None:
        self._reply("RCPT", await self._dialogue.rcpt(argument))

    async def _quit(self, argument: str) -> None:
        reply = self._dialogue.quit(argument)
        self._reply("QUIT", reply)
        if reply.is_success:
            raise SessionEnd("quit")

    async def _auth(self, argument: str) -> None:
        self._reply("AUTH", await self._dialogue.auth(argument, self._ask))

    async def _ask(self, challenge: bytes) -> bytes:
        """One challenge of AUTH and its answer."""
        self._wire.send(b"334 " + challenge + b"\r\n")
        try:
            line = await self._wire.answer_line()
        except LineTooLong as error:
            raise SaslError(AUTH_TOO_LONG) from error
        if not is_proper_line(line):
            raise SaslError(LINE_END_WRONG)
        return line.strip()

    async def _starttls(self, argument: str) -> None:
        obstacle = self._dialogue.starttls_obstacle(argument)
        if obstacle is not None:
            self._reply("STARTTLS", obstacle)
            return
        self._reply("STARTTLS", READY_FOR_TLS)
        self._dialogue.tls_started(await self._wire.start_tls())

    async def _data(self, argument: str) -> None:
        reply = self._dialogue.data(argument)
        self._reply("DATA", reply)
        if not reply.is_intermediate:
            return
        intake = self._dialogue.open_intake()
        await self._wire.flush()
        try:
            await self._receive(intake)
        except BaseException:
            await intake.discard()
            raise
        reply = await self._dialogue.content_ended(intake)
        if reply.is_success:
            self._errors = self._recipient_errors = 0
        self._reply("CONTENT", reply)

    async def _receive(self, intake: Intake) -> None:
        """Read a content to its end, and not an octet further."""
        parser = DotParser(mend_line_ends=self._dialogue.mends_line_ends)
        rate = self._dialogue.config.smtp.limits.min_data_rate
        started = time.monotonic()
        try:
            while not parser.ended:
                block = await self._wire.block()
                intake.add(parser.feed(block))
                if parser.fault is not None:
                    intake.refuse(parser.fault)
                if intake.is_full:
                    await intake.store()
                elapsed = time.monotonic() - started
                if elapsed > RATE_GRACE_S and intake.size < elapsed * rate:
                    raise SessionEnd("slow", TOO_SLOW)
        except (SessionEnd, EndOfInput, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            raise
        except Exception as error:
            event(_log, ERROR, "content cannot be read", exc_info=True)
            raise SessionEnd("failed", INTERNAL_ERROR) from error
        self._wire.unread(parser.rest)


def is_proper_line(line: bytes) -> bool:
    """Whether a line ends in CRLF and has no other CR, LF or NUL."""
    return line.endswith(b"\r\n") and b"\r" not in line[:-2] and b"\0" not in line
