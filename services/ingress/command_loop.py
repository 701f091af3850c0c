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
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import Counter

from services.common.failpoint import Failpoint, reached
from services.common.log import ERROR, event
from services.common.mail.reply import (
    BAD_ARGUMENTS,
    BAD_SEQUENCE,
    INTERNAL_ERROR,
    OK,
    SHUTTING_DOWN,
    UNKNOWN_COMMAND,
    Reply,
)
from services.ingress.chunk_lines import ChunkLines
from services.ingress.command_line import Command, is_proper_line, parse_bdat, parse_command
from services.ingress.dialogue import Dialogue
from services.ingress.dot_parser import DotParser
from services.ingress.input import EndOfInput, LineTooLong
from services.ingress.intake import Intake
from services.ingress.mistakes import Mistakes
from services.ingress.receiving import Receiver, skip
from services.ingress.replies import (
    AUTH_TOO_LONG,
    LINE_END_WRONG,
    LINE_TOO_LONG,
    NOT_IMPLEMENTED,
    NOT_SMTP,
    READY_FOR_TLS,
    TOO_MANY_ERRORS,
    wire,
)
from services.ingress.sasl import SaslError
from services.ingress.transaction import Transaction
from services.ingress.wire import SessionEnd, Wire

_log = logging.getLogger(__name__)

REPLIES = Counter(
    "gatepost_ingress_replies_total",
    "Replies, by command and code. CONTENT is the end of a content, `other` what is no command.",
    ["command", "code"],
)

MAX_RECIPIENTS_TOGETHER: Final = 50
"""Pipelined RCPT commands that policy is asked about in one call; its answer takes about 300 octets
for each, and all of them wait for the slowest."""

REPLIES_IN_A_ROW: Final = 16
"""So many, then it is the turn of the other sessions. Commands that are here already take no
waiting, and a client may have thousands of them here."""

MIN_CHUNK_OCTETS: Final = 64
"""A chunk with fewer that is not the last counts as a command that moves no mail."""

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
        self._mistakes = Mistakes()
        self._chunked: _Chunked | None = None
        self._replies_in_a_row = 0
        self._special: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "RCPT": self._rcpt,
            "DATA": self._data,
            "BDAT": self._bdat,
            "AUTH": self._auth,
            "STARTTLS": self._starttls,
            "QUIT": self._quit,
        }

    async def run(self) -> None:
        """Greet, and answer until the session ends with `SessionEnd` or `EndOfInput`."""
        self._wire.send(f"220 {self._dialogue.config.smtp.hostname} ESMTP Gatepost\r\n".encode())
        try:
            while True:
                if self._is_draining() and self._dialogue.transaction is None:
                    raise SessionEnd("drained", SHUTTING_DOWN)
                await self._next_command()
                if self._chunked and self._chunked.transaction is not self._dialogue.transaction:
                    # RSET, for example: the chunks that came so far belong to nothing.
                    await self._drop_chunks()
                if self._replies_in_a_row >= REPLIES_IN_A_ROW:
                    self._replies_in_a_row = 0
                    await asyncio.sleep(0)
        finally:
            await self._drop_chunks()

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
        command = parse_command(line)
        if isinstance(command, Reply):
            self._reply("", command)
        else:
            await self._command(command.verb, command.argument)

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
            self._failed(verb)
            self._reply(verb, INTERNAL_ERROR)

    def _failed(self, verb: str) -> None:
        """Note an exception. What the transaction has come to is not certain any more."""
        event(_log, ERROR, "command failed", command=verb, exc_info=True)
        self._dialogue.reset()

    # --- replies --------------------------------------------------------------------------------

    def _reply(self, verb: str, reply: Reply | bytes) -> None:
        # The reply to EHLO is octets already.
        known = None if isinstance(reply, bytes) else reply
        self._wire.send(reply if isinstance(reply, bytes) else wire(reply))
        self._replies_in_a_row += 1
        code = known.code if known else 250
        _counter(verb, code).inc()
        if code == 421:
            raise SessionEnd("errors")
        limits = self._dialogue.config.smtp.limits
        if self._mistakes.count(verb, known, limits):
            raise SessionEnd("errors", TOO_MANY_ERRORS)

    # --- commands that wait for somebody --------------------------------------------------------

    async def _rcpt(self, argument: str) -> None:
        if self._chunked:
            # RFC 3030 §2: what has begun with BDAT goes on with BDAT.
            self._reply("RCPT", BAD_SEQUENCE)
            return
        arguments = [argument, *await self._pipelined_recipients()]
        try:
            replies = await self._dialogue.rcpt(arguments)
        except Exception:  # noqa: BLE001 - as for every command; but each of these has its reply
            self._failed("RCPT")
            replies = [INTERNAL_ERROR] * len(arguments)
        for reply in replies:
            self._reply("RCPT", reply)

    async def _pipelined_recipients(self) -> list[str]:
        """The arguments of further RCPT commands that are here already.

        Policy is asked about all of them at once. No more than there is room for: those have their
        reply without it. Any other line ends them and is read as always.
        """
        most = min(MAX_RECIPIENTS_TOGETHER, self._dialogue.recipient_room) - 1
        arguments: list[str] = []
        while len(arguments) < most and (line := self._wire.waiting_line()):
            command = parse_command(line)
            if not isinstance(command, Command) or command.verb != "RCPT":
                break
            await self._wire.command_line()
            arguments.append(command.argument)
        return arguments

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

    # --- content --------------------------------------------------------------------------------

    async def _data(self, argument: str) -> None:
        reply = BAD_SEQUENCE if self._chunked else self._dialogue.data(argument)
        self._reply("DATA", reply)
        if not reply.is_intermediate:
            return
        await self._wire.flush()
        intake = self._dialogue.open_intake()
        receiver = self._receiver(intake)
        parser = DotParser(mend_line_ends=self._dialogue.mends_line_ends)
        await self._received(intake, receiver.until_dot(parser))
        await self._content_ended(intake)

    async def _bdat(self, argument: str) -> None:
        parsed = parse_bdat(argument)
        if parsed is None:
            # How much follows is not known, so nothing that follows can be understood.
            raise SessionEnd("errors", BAD_ARGUMENTS)
        octets, is_last = parsed
        obstacle = self._dialogue.content_obstacle()
        if obstacle is not None:
            await self._wire.flush()
            await skip(self._wire, octets)
            self._reply("BDAT", obstacle)
            return
        if self._chunked is None:
            self._chunked = self._begin_chunks()
        await self._chunk(self._chunked, octets, is_last=is_last)

    def _begin_chunks(self) -> _Chunked:
        intake = self._dialogue.open_intake()
        lines = ChunkLines(mend_line_ends=self._dialogue.mends_line_ends)
        return _Chunked(self._dialogue.transaction, intake, lines, self._receiver(intake))

    async def _chunk(self, chunked: _Chunked, octets: int, *, is_last: bool) -> None:
        intake = chunked.intake
        await self._wire.flush()
        await self._received(intake, chunked.receiver.chunk(chunked.lines, octets))
        if is_last:
            intake.add(chunked.lines.end())
            if chunked.lines.fault is not None:
                intake.refuse(chunked.lines.fault)
            self._chunked = None
            await self._content_ended(intake)
        elif intake.refusal is not None:
            # RFC 3030 §2: after a refused chunk the client has to begin anew.
            self._dialogue.reset()
            self._reply("CONTENT", intake.refusal)
        else:
            if octets < MIN_CHUNK_OCTETS:
                self._mistakes.note_small_chunk()
            self._reply("BDAT", OK)

    async def _drop_chunks(self) -> None:
        """Forget a content that comes by BDAT and has not ended."""
        if self._chunked is not None:
            chunked, self._chunked = self._chunked, None
            await chunked.intake.discard()

    def _receiver(self, intake: Intake) -> Receiver:
        rate = self._dialogue.config.smtp.limits.min_data_rate
        return Receiver(self._wire, intake, min_rate=rate)

    async def _received(self, intake: Intake, receiving: Coroutine[None, None, None]) -> None:
        """Read from the client. Whatever goes wrong in it ends the session."""
        try:
            await receiving
        except Exception as error:
            await intake.discard()
            if isinstance(error, SessionEnd | EndOfInput | ConnectionError | ssl.SSLError):
                raise
            event(_log, ERROR, "content cannot be read", exc_info=True)
            raise SessionEnd("failed", INTERNAL_ERROR) from error
        except asyncio.CancelledError:
            await intake.discard()
            raise

    async def _content_ended(self, intake: Intake) -> None:
        reply = await self._dialogue.content_ended(intake)
        if reply.is_success:
            self._mistakes.forgive()
        self._reply("CONTENT", reply)
        if reply.is_success:
            await self._wire.flush()
            reached(Failpoint.AFTER_ACCEPT)


@cache
def _counter(verb: str, code: int) -> Counter:
    """The one of `REPLIES`: verbs that are none do not come here, so there are few."""
    return REPLIES.labels(verb or "other", str(code))


@dataclass(frozen=True, slots=True)
class _Chunked:
    """A content that comes by BDAT."""

    transaction: Transaction | None
    intake: Intake
    lines: ChunkLines
    receiver: Receiver
