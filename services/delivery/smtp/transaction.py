"""One mail over an open session, with a result for each recipient.

RFC 5321 §3.3 (MAIL, RCPT, DATA), RFC 2920 (PIPELINING), RFC 2033 §4.2 (a reply for each recipient
after the dot), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 3461 (DSN).

Guarantees: the final dot is sent only after the content was read to its end, which is where its
hash is compared; before the dot a failure may be tried elsewhere, after it never in the same
attempt; a recipient that was refused or accepted stays so, whatever becomes of the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Never

from services.common.failpoint import Failpoint, reached
from services.common.mail.envelope import (
    Body,
    Extension,
    MailParameters,
    RecipientParameters,
    mail_options,
    recipient_options,
)
from services.common.mail.message import header_length
from services.common.mail.reply import Reply
from services.delivery.outcome import Result, result_of
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.session import Session, going_on
from services.delivery.smtp.wire import END_OF_DATA, DotStuffing, LineEnds

NO_SMTPUTF8 = Reply(553, "5.6.7", "The next hop cannot take internationalized addresses or headers")
NO_EIGHT_BIT = Reply(554, "5.6.3", "The next hop cannot take 8-bit content")
TOO_BIG = Reply(552, "5.3.4", "The message is larger than the next hop takes")
NOT_READY_FOR_DATA = Reply(451, "4.5.0", "The next hop answered DATA with something unexpected")
LOST_AFTER_DOT = Reply(451, "4.4.2", "No answer after the end of the message; it may have arrived")

_PIPELINING: Final = "PIPELINING"
_START_CONTENT: Final = 354

MAX_SIZE_DIGITS = 20
"""RFC 1870 §3."""


Blocks = Callable[[], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Addressee:
    """A recipient in the form in which RCPT says it."""

    address: str
    parameters: RecipientParameters


@dataclass(frozen=True, slots=True)
class Mail:
    """What a transaction sends. The same value serves several sessions."""

    reverse_path: str
    parameters: MailParameters
    size: int
    blocks: Blocks
    """Begins to read the content anew. The iterator raises if the content is not what it was."""
    encryption_optional: bool = False
    """Sent unencrypted where a policy demands encryption that cannot be had."""


async def transact(
    session: Session, mail: Mail, addressees: Sequence[Addressee], results: dict[Addressee, Result]
) -> None:
    """Send a mail and put a result for each addressee into `results`.

    Raises `SessionFailed` if the session ended before the dot: the addressees without a result may
    then be tried elsewhere. What `mail.blocks` raises is passed on, and the session is dropped.
    """
    try:
        await _transact(session, mail, addressees, results)
    except BaseException:
        session.abort()
        raise


async def _transact(
    session: Session, mail: Mail, addressees: Sequence[Addressee], results: dict[Addressee, Result]
) -> None:
    hop = session.hop
    session.mails += 1
    refusal = await _not_sendable(mail, addressees, session.extensions)
    if refusal is not None:
        results.update(dict.fromkeys(addressees, result_of(refusal, hop)))
        return
    accepted, reply = await _envelope(session, mail, addressees, results)
    if accepted and reply is not None and reply.code == _START_CONTENT:
        await _content(session, mail, accepted, results)
        return
    if accepted and reply is not None:
        reply = reply if reply.is_transient or reply.is_permanent else NOT_READY_FOR_DATA
        results.update(dict.fromkeys(accepted, _of_all(accepted, reply, hop)))
    elif reply is not None and reply.code == _START_CONTENT:
        # It wants content for nobody, as RFC 2920 §3.1 foresees: it gets none.
        await session.connection.send(END_OF_DATA, limit_s=session.patience.block)
        limit_s = session.patience.end_of_data
        going_on(await session.connection.reply("no content", limit_s=limit_s))
    await session.command("RSET")


async def _envelope(
    session: Session, mail: Mail, addressees: Sequence[Addressee], results: dict[Addressee, Result]
) -> tuple[list[Addressee], Reply | None]:
    """MAIL, RCPT and DATA: who was accepted, and the answer to DATA if it was said.

    With PIPELINING (RFC 2920) all is said at once and the answers are read in their order.
    """
    hop, patience = session.hop, session.patience
    at_once = _PIPELINING in session.extensions
    options = mail_options(mail.parameters, offered=session.extensions)
    commands = [
        _with_options(f"MAIL FROM:<{mail.reverse_path}>", options),
        *(_recipient(addressee, session) for addressee in addressees),
        "DATA",
    ]
    if at_once:
        session.connection.write_commands(commands)

    async def answer(number: int, limit_s: float) -> Reply:
        if not at_once:
            return await session.command(commands[number], limit_s=limit_s)
        verb = commands[number].partition(" ")[0]
        return going_on(await session.connection.reply(verb, limit_s=limit_s))

    mail_reply = await answer(0, patience.command)
    accepted: list[Addressee] = []
    if not mail_reply.is_success:
        results.update(dict.fromkeys(addressees, result_of(mail_reply, hop)))
        if not at_once:
            return [], None
    for number, addressee in enumerate(addressees, start=1):
        reply = await answer(number, patience.command)
        if not mail_reply.is_success:
            continue
        if reply.is_success:
            accepted.append(addressee)
        else:
            results[addressee] = result_of(reply, hop, of_recipient=True)
    if not accepted and not at_once:
        return [], None
    return accepted, await answer(len(commands) - 1, patience.data)


def _recipient(addressee: Addressee, session: Session) -> str:
    options = recipient_options(addressee.parameters, offered=session.extensions)
    return _with_options(f"RCPT TO:<{addressee.address}>", options)


async def _content(
    session: Session, mail: Mail, accepted: list[Addressee], results: dict[Addressee, Result]
) -> None:
    connection, patience = session.connection, session.patience
    line_ends, dots = LineEnds(), DotStuffing()
    data = b""
    async with aclosing(mail.blocks()) as blocks:
        async for block in blocks:
            if connection.has_input:
                await _interrupted(session, accepted, results)
            await connection.send(data, limit_s=patience.block)
            data = dots.stuffed(line_ends.normalised(block))
    # The last block goes with the dot: a write less, and the peer is woken once less.
    ending = dots.stuffed(line_ends.end()) + dots.end()
    await connection.send(data + ending, limit_s=patience.block)
    reached(Failpoint.AFTER_DOT)
    await _answers(session, accepted, results)
    reached(Failpoint.AFTER_DELIVERY)


async def _interrupted(
    session: Session, accepted: list[Addressee], results: dict[Addressee, Result]
) -> Never:
    """The peer answers, or hangs up, before the end. The session is over; what it said counts."""
    limit_s = session.patience.block
    reply = going_on(await session.connection.reply("the content", limit_s=limit_s))
    if reply.is_permanent:
        results.update(dict.fromkeys(accepted, _of_all(accepted, reply, session.hop)))
    raise SessionFailed(Failure.PROTOCOL, f"an answer within the content: {reply}")


async def _answers(
    session: Session, accepted: list[Addressee], results: dict[Addressee, Result]
) -> None:
    hop = session.hop
    limit_s = session.patience.end_of_data
    waiting = list(accepted)
    try:
        while waiting:
            reply = await session.connection.reply("the end of the message", limit_s=limit_s)
            answered = [waiting.pop(0)] if session.peer.lmtp else waiting
            if reply.is_intermediate:
                reply = NOT_READY_FOR_DATA
            knows_dsn = Extension.DSN in session.extensions
            result = result_of(
                reply,
                hop,
                reports_handed_on=reply.is_success and knows_dsn,
                of_recipient=len(answered) == 1,
            )
            results.update(dict.fromkeys(answered, result))
            if not session.peer.lmtp:
                return
    except SessionFailed:
        # It may have the mail or not. Trying another host now could only add a copy.
        results.update(dict.fromkeys(waiting, result_of(LOST_AFTER_DOT, hop)))
        session.abort()


def _of_all(accepted: list[Addressee], reply: Reply, hop: str) -> Result:
    """The result of a reply to the whole mail; with one recipient it is about nobody else."""
    return result_of(reply, hop, of_recipient=len(accepted) == 1)


async def _not_sendable(
    mail: Mail, addressees: Sequence[Addressee], offered: Mapping[str, str]
) -> Reply | None:
    """Why a peer that offers these extensions cannot be given this mail; None if it can.

    What a client only declared is looked at before a mail is given up for it.
    """
    if mail.parameters.smtputf8 and Extension.SMTPUTF8 not in offered:
        paths = (mail.reverse_path, *(addressee.address for addressee in addressees))
        if not all(map(str.isascii, paths)) or await _header_is_eight_bit(mail):
            return NO_SMTPUTF8
    if (
        mail.parameters.body is Body.EIGHT_BIT_MIME
        and Extension.EIGHT_BIT_MIME not in offered
        and await _is_eight_bit(mail)
    ):
        return NO_EIGHT_BIT
    limit = offered.get(Extension.SIZE, "")
    if limit.isdecimal() and len(limit) <= MAX_SIZE_DIGITS and 0 < int(limit) < mail.size:
        return TOO_BIG
    return None


async def _is_eight_bit(mail: Mail) -> bool:
    async with aclosing(mail.blocks()) as blocks:
        async for block in blocks:
            if not block.isascii():
                return True
    return False


async def _header_is_eight_bit(mail: Mail) -> bool:
    begin = bytearray()
    async with aclosing(mail.blocks()) as blocks:
        async for block in blocks:
            begin += block
            length = header_length(begin)
            if length is not None:
                return not begin[:length].isascii()
    return not begin.isascii()


def _with_options(command: str, options: Sequence[str]) -> str:
    return " ".join([command, *options])
