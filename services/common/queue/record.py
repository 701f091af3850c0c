"""The record of the queue: read strictly, written in one way.

A record is what the ingress promised with its 250, so nothing about it is guessed: what cannot be
understood is `UnreadableRecord`, and whoever reads it then keeps it as it is instead of acting on
a part of it. A record of a newer schema is unreadable too; an older release beside a newer one
must not drop fields that it does not know the meaning of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError, EncodeError

from gatepost.queue.v1.record_pb2 import (
    QueuedMessage,
    Recipient,
    RecipientState,
)
from services.common.mail.address import AddressError, Mailbox, parse_mailbox
from services.common.mail.envelope import Body, MailParameters, Notify, RecipientParameters, Ret
from services.common.mail.ids import is_message_id
from services.common.queue.subjects import RecordKey, State, schedule_headers
from services.common.store import Outgoing

SCHEMA_VERSION: Final = 1
"""Raise it when a reader that does not know a new field would do the wrong thing."""

_SHA256_OCTETS: Final = 32


class UnreadableRecord(ValueError):
    """These octets are no record that this release can act on; the text says why, for operators."""


def read_record(data: bytes, key: RecordKey) -> QueuedMessage:
    """The record found on a subject with this key. Raises `UnreadableRecord`."""
    try:
        record = QueuedMessage.FromString(data)
    except DecodeError as error:
        raise UnreadableRecord(f"not a record: {error}") from error
    try:
        _check(record, key)
    except ValueError as error:
        raise UnreadableRecord(str(error)) from error
    return record


def ready(record: QueuedMessage) -> Outgoing:
    """The record as due now."""
    return Outgoing(key_of(record).subject(State.READY), _encoded(record))


def deferred(record: QueuedMessage, due: datetime) -> Outgoing:
    """The record as waiting for a time. Raises ValueError if it holds its content."""
    if record.WhichOneof("content") == "inline_content":
        # The server loads all that is due at once: with contents that is gigabytes.
        raise ValueError("a deferred record must not carry content")
    key = key_of(record)
    record.due_time.FromDatetime(due)
    return Outgoing(key.subject(State.DEFERRED), _encoded(record), schedule_headers(key, due))


def held(record: QueuedMessage) -> Outgoing:
    """The record as held by an operator. Raises ValueError if it holds its content."""
    if record.WhichOneof("content") == "inline_content":
        raise ValueError("a held record must not carry content")
    return Outgoing(key_of(record).subject(State.HELD), _encoded(record))


def key_of(record: QueuedMessage) -> RecordKey:
    """What names the record."""
    return RecordKey(record.destination, record.message_id)


def sender_of(record: QueuedMessage) -> Mailbox | None:
    """The reverse-path; None for the null sender."""
    return _mailbox(record.sender) if record.sender else None


def mailbox_of(recipient: Recipient) -> Mailbox:
    """Where a recipient's mail goes."""
    return _mailbox(recipient.address)


@lru_cache(maxsize=4096)
def _mailbox(text: str) -> Mailbox:
    # Each address is looked at several times on its way through.
    return parse_mailbox(text, smtputf8=True)


def pending(record: QueuedMessage) -> list[Recipient]:
    """The recipients that are still to be delivered to."""
    waiting = RecipientState.RECIPIENT_STATE_PENDING
    return [recipient for recipient in record.recipients if recipient.state == waiting]


def mail_parameters(record: QueuedMessage) -> MailParameters:
    """What to say after MAIL FROM, as far as the next hop offers it."""
    return MailParameters(
        size=record.size,
        body=Body(record.body) if record.body else None,
        smtputf8=record.smtputf8,
        ret=Ret(record.ret) if record.ret else None,
        envid=record.envid or None,
    )


def recipient_parameters(recipient: Recipient) -> RecipientParameters:
    """What to say after RCPT TO, if the next hop offers DSN."""
    return RecipientParameters(
        notify=frozenset(Notify(event) for event in recipient.notify),
        orcpt=recipient.orcpt or None,
    )


def accept_time(record: QueuedMessage) -> datetime:
    """When the mail was accepted."""
    return record.accept_time.ToDatetime(tzinfo=UTC)


def _encoded(record: QueuedMessage) -> bytes:
    try:
        return record.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ValueError(f"the record cannot be written: {error}") from error


def _check(record: QueuedMessage, key: RecordKey) -> None:
    """Raise ValueError for anything that the rest of the code relies on and that does not hold."""
    if not 1 <= record.schema_version <= SCHEMA_VERSION:
        raise ValueError(f"schema {record.schema_version}, this release knows {SCHEMA_VERSION}")
    if key_of(record) != key:
        raise ValueError("the record belongs to another subject")
    if not record.HasField("accept_time"):
        raise ValueError("the record has no time of acceptance")
    if not record.recipients:
        raise ValueError("the record has no recipients")
    try:
        sender_of(record)
    except AddressError as error:
        raise ValueError(f"the sender is no address: {error.reason}") from error
    mail_parameters(record)
    _check_parameter("ENVID", record.envid)
    for recipient in record.recipients:
        _check_recipient(recipient, key)
    _check_content(record)


def _check_recipient(recipient: Recipient, key: RecordKey) -> None:
    try:
        mailbox = mailbox_of(recipient)
    except AddressError as error:
        raise ValueError(f"a recipient is no address: {error.reason}") from error
    if mailbox.domain != key.destination:
        raise ValueError("a recipient is of another destination")
    if recipient.state not in (
        RecipientState.RECIPIENT_STATE_PENDING,
        RecipientState.RECIPIENT_STATE_DELIVERED,
        RecipientState.RECIPIENT_STATE_FAILED,
    ):
        raise ValueError(f"a recipient is in state {recipient.state}")
    recipient_parameters(recipient)
    _check_parameter("ORCPT", recipient.orcpt)


def _check_parameter(name: str, value: str) -> None:
    # It will stand in a command line of ours: a space or line end would begin something new there.
    if " " in value or not value.isprintable():
        raise ValueError(f"{name} cannot stand in a command")


def _check_content(record: QueuedMessage) -> None:
    match record.WhichOneof("content"):
        case "inline_content":
            if len(record.inline_content) != record.size:
                raise ValueError(
                    f"the content has {len(record.inline_content)} octets, not {record.size}"
                )
        case "content_reference":
            reference = record.content_reference
            if not is_message_id(reference.content_id):
                raise ValueError("the content has no proper id")
            if not reference.chunks or len(reference.sha256) != _SHA256_OCTETS:
                raise ValueError("the reference to the content is not complete")
        case _:
            raise ValueError("the record has no content")
