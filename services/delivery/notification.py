"""What a sender is told about a mail: RFC 3464 (reports), RFC 6522 (multipart/report), RFC 3461 §6.

A report has three parts: a text for people, the facts for programs, and the mail's header or, where
RET=FULL asks for it and it is small, the mail. Its reverse-path is null, so that it is never
answered by another (RFC 5321 §6.1). Everything that came from outside is made one printable line.
Deviation: without RET the header is returned, not the mail (RFC 3461 §6.2 leaves the choice).
An internationalized mail gets the types of RFC 6533.

Guarantees: every recipient is named, however many there are, in a report that the queue takes. For
that less of the mail is returned first, then less is said of each recipient.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient
from services.common.mail.ids import notification_id
from services.common.mail.message import folded, header_length
from services.common.mail.printable import one_line
from services.common.mail.xtext import XtextError, decode_xtext
from services.common.queue.content import MAX_CHUNK_OCTETS
from services.common.queue.record import accept_time
from services.delivery.decision import Action

MAX_RETURNED_OCTETS: Final = 64 * 1024
"""A mail that is longer is returned as its header, whatever RET says: reports are for people who
wait for an answer, not for the transport of attachments back."""

MAX_REPORT_OCTETS: Final = MAX_CHUNK_OCTETS
"""A report stands in its record, and in one chunk once it has to wait."""

MAX_VALUE_OCTETS: Final = 900

REPLY_OCTETS: Final = (MAX_VALUE_OCTETS, 100, 0)
"""What a peer said of each recipient may take so much, or so little where there are so many of them
that the report would be too long. With nothing there are only the fields that RFC 3464 demands:
that is enough for all recipients that the ingress takes for one mail."""

_SUBJECT: Final = {
    Action.FAILED: "Undelivered mail: returned to sender",
    Action.DELAYED: "Delayed mail: still being tried",
    Action.DELIVERED: "Delivered mail",
    Action.RELAYED: "Relayed mail",
}
_OPENING: Final = {
    Action.FAILED: "Your message could not be delivered to the recipients below. "
    "It will not be tried again.",
    Action.DELAYED: "Your message has not been delivered yet to the recipients below. "
    "You need not send it again: it will be tried further.",
    Action.DELIVERED: "Your message was delivered to the recipients below.",
    Action.RELAYED: "Your message was handed on to the recipients below. "
    "Their mail system does not report deliveries, so this is the last you will hear of it.",
}
_REPORTS_OF_TRYING: Final = frozenset({Action.FAILED, Action.DELAYED})


@dataclass(frozen=True, slots=True)
class Report:
    """A notification, ready to be queued."""

    id: str
    """The same for the same mail, recipients and action: it is queued only once."""
    content: bytes


def report_id(record: QueuedMessage, action: Action, recipients: Sequence[Recipient]) -> str:
    """The id of the notification about these recipients."""
    addresses = sorted(recipient.address for recipient in recipients)
    return notification_id(record.message_id, action, record.destination, *addresses)


def returns_all(record: QueuedMessage, action: Action) -> bool:
    """Whether the report returns the whole mail and not its header alone."""
    return action is Action.FAILED and record.ret == "FULL" and record.size <= MAX_RETURNED_OCTETS


def make_report(
    record: QueuedMessage,
    action: Action,
    recipients: Sequence[Recipient],
    *,
    returned: bytes,
    hostname: str,
    now: datetime,
    give_up: datetime | None = None,
) -> Report:
    """The notification about recipients of a mail.

    `returned` is the mail or its header, as `returns_all` says; `give_up` is for a delay: until
    when the mail is tried. Of many recipients little is said, so that the report is not too long.
    """
    identity = report_id(record, action, recipients)
    boundary = f"={hashlib.sha256(identity.encode()).hexdigest()[:32]}="
    utf8 = _is_internationalized(record, recipients, returned)
    header = _header(record, action, identity, boundary, hostname=hostname, now=now)
    opening = f"--{boundary}\r\n".encode()
    end = f"--{boundary}--\r\n".encode()
    room = MAX_REPORT_OCTETS - len(header + b"\r\n" + 3 * opening + end)
    parts = _told(_Telling(record, action, recipients, hostname, give_up, utf8), room=room)
    room -= sum(map(len, parts))
    for returnable in _returnable(returned, whole=returns_all(record, action), utf8=utf8):
        if len(returnable) <= room:
            parts.append(returnable)
            break
    body = b"".join(opening + part for part in parts)
    return Report(identity, header + b"\r\n" + body + end)


@dataclass(frozen=True, slots=True)
class _Telling:
    """What is told."""

    record: QueuedMessage
    action: Action
    recipients: Sequence[Recipient]
    hostname: str
    give_up: datetime | None
    utf8: bool
    reply_octets: int = MAX_VALUE_OCTETS


def _told(telling: _Telling, *, room: int) -> list[bytes]:
    """The parts for people and for programs, with as much of each reply as there is room for."""
    facts_type = "message/global-delivery-status" if telling.utf8 else "message/delivery-status"
    parts: list[bytes] = []
    for octets in REPLY_OCTETS:
        telling = replace(telling, reply_octets=octets)
        parts = [
            _part("text/plain; charset=utf-8", _text(telling)),
            _part(facts_type, _facts(telling)),
        ]
        if sum(map(len, parts)) <= room:
            break
    return parts


def _returnable(returned: bytes, *, whole: bool, utf8: bool) -> Iterator[bytes]:
    """The part with the mail, then the one with less of it."""
    if whole:
        yield _part("message/global" if utf8 else "message/rfc822", returned)
        returned = returned[: header_length(returned)]
    yield _part("message/global-headers" if utf8 else "text/rfc822-headers", returned)


def _header(
    record: QueuedMessage,
    action: Action,
    identity: str,
    boundary: str,
    *,
    hostname: str,
    now: datetime,
) -> bytes:
    sender = record.sender
    fields = [
        folded("Date", format_datetime(now)),
        folded("From", f"Mail delivery <postmaster@{hostname}>"),
        folded("To", f"<{sender}>", utf8=not sender.isascii()),
        folded("Subject", _SUBJECT[action]),
        folded("Message-ID", f"<{identity}@{hostname}>"),
        folded("Auto-Submitted", "auto-replied"),
        folded("MIME-Version", "1.0"),
        folded(
            "Content-Type",
            "multipart/report;",
            "report-type=delivery-status;",
            f'boundary="{boundary}"',
        ),
    ]
    return b"".join(fields)


def _part(content_type: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content.removesuffix(b"\r\n") + b"\r\n\r\n"


def _text(telling: _Telling) -> bytes:
    record, give_up = telling.record, telling.give_up
    lines = [f"This is the mail system at {telling.hostname}.", "", _OPENING[telling.action]]
    if give_up is not None:
        lines.append(f"It is given up if it cannot be delivered until {format_datetime(give_up)}.")
    gap = [""] if telling.reply_octets else []
    says_why = telling.reply_octets and telling.action in _REPORTS_OF_TRYING
    for recipient in telling.recipients:
        lines += [*gap, f"  {_clean(recipient.original_address or recipient.address)}"]
        if says_why and recipient.HasField("last_status"):
            lines.append(f"    {_said(recipient, telling.reply_octets)}")
    lines += ["", f"Message id: {record.message_id}, attempts: {record.attempts}", ""]
    return "\r\n".join(_wrapped(lines)).encode()


def _said(recipient: Recipient, octets: int) -> str:
    status = recipient.last_status
    reply = status.reply
    said = one_line(f"{reply.code} {reply.enhanced_code} {reply.text}", limit=octets)
    return f"{_clean(status.next_hop)} said: {said}" if status.next_hop else said


def _facts(telling: _Telling) -> bytes:
    record = telling.record
    fields = []
    if envid := _decoded(record.envid):
        fields.append(_field("Original-Envelope-Id", envid))
    fields.append(_field("Reporting-MTA", f"dns; {telling.hostname}"))
    fields.append(_field("Arrival-Date", format_datetime(accept_time(record))))
    groups = (_recipient_facts(each, telling) for each in telling.recipients)
    return b"\r\n".join([b"".join(fields), *groups])


def _recipient_facts(recipient: Recipient, telling: _Telling) -> bytes:
    utf8 = telling.utf8
    kind = "utf-8" if utf8 else "rfc822"
    fields = [
        _field("Final-Recipient", f"{kind}; {recipient.address}", utf8=utf8),
        _field("Action", telling.action),
        _field("Status", _status_code(recipient, telling.action)),
    ]
    if telling.reply_octets:
        if original := _original_recipient(recipient):
            fields.insert(0, _field("Original-Recipient", original, utf8=utf8))
        fields += _trying_facts(recipient, telling)
    return b"".join(fields)


def _trying_facts(recipient: Recipient, telling: _Telling) -> list[bytes]:
    fields = []
    status = recipient.last_status
    if status.next_hop:
        host = status.next_hop.partition("[")[0] or status.next_hop
        fields.append(_field("Remote-MTA", f"dns; {host}"))
        reply = status.reply
        diagnostic = f"smtp; {reply.code} {reply.enhanced_code} {reply.text}"
        diagnostic = one_line(diagnostic, limit=telling.reply_octets)
        fields.append(_field("Diagnostic-Code", diagnostic, utf8=telling.utf8))
    if recipient.HasField("last_status"):
        tried = status.attempt_time.ToDatetime(tzinfo=UTC)
        fields.append(_field("Last-Attempt-Date", format_datetime(tried)))
    if telling.give_up is not None:
        fields.append(_field("Will-Retry-Until", format_datetime(telling.give_up)))
    return fields


def _status_code(recipient: Recipient, action: Action) -> str:
    """RFC 3463. A mail that is given up after temporary failures keeps the code of the last one."""
    if action in _REPORTS_OF_TRYING:
        return recipient.last_status.reply.enhanced_code or "4.0.0"
    return "2.0.0"


def _original_recipient(recipient: Recipient) -> str:
    kind, _, address = recipient.orcpt.partition(";")
    decoded = _decoded(address, utf8=kind.lower() == "utf-8")
    return f"{_clean(kind)}; {decoded}" if decoded else ""


def _decoded(xtext: str, *, utf8: bool = False) -> str:
    try:
        return _clean(decode_xtext(xtext, utf8=utf8)) if xtext else ""
    except XtextError:
        return ""


def _field(name: str, value: str, *, utf8: bool = False) -> bytes:
    return folded(name, _clean(value), utf8=utf8)


def _clean(text: str) -> str:
    return one_line(text, limit=MAX_VALUE_OCTETS)


def _wrapped(lines: Sequence[str]) -> list[str]:
    """Lines that fit a terminal, with what is indented still so."""
    wrapped = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip(" ")))
        wrapped += textwrap.wrap(line, 76, subsequent_indent=indent) or [""]
    return wrapped


def _is_internationalized(
    record: QueuedMessage, recipients: Sequence[Recipient], returned: bytes
) -> bool:
    paths = [record.sender, *(recipient.address for recipient in recipients)]
    return not all(map(str.isascii, paths)) or (record.smtputf8 and not returned.isascii())
