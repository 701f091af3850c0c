"""The records of an accepted mail: one for each destination (pure).

A record is published as one NATS message, so what recipients may add to it is bounded at RCPT
(`MAX_RECIPIENT_OCTETS`), and content stands in the records only where it does not multiply much.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gatepost.queue.v1.record_pb2 import (
    RECIPIENT_STATE_PENDING,
    ContentReference,
    QueuedMessage,
    Recipient,
)
from services.common.mail.address import Mailbox
from services.common.mail.envelope import Notify
from services.common.queue.content import MAX_INLINE_OCTETS
from services.common.queue.record import SCHEMA_VERSION, ready
from services.common.store import Outgoing
from services.ingress.transaction import AcceptedRecipient, Session, Transaction

MAX_RECIPIENT_OCTETS: Final = 512 * 1024
"""For all recipients of a transaction: with an inline content a record stays below 1 MiB."""

MAX_INLINE_TOTAL_OCTETS: Final = 1024 * 1024
"""Inline content is stored once for each destination. Beyond this a reference is cheaper."""

_FIXED_RECIPIENT_OCTETS: Final = 48


def recipient_octets(recipient: AcceptedRecipient) -> int:
    """About what a recipient takes up in the records."""
    once = len(str(recipient.mailbox).encode()) + _FIXED_RECIPIENT_OCTETS
    once += len((recipient.parameters.orcpt or "").encode())
    return sum(once + len(str(target).encode()) for target in recipient.deliver_to)


def fits_inline(octets: int, *, destinations: int) -> bool:
    """Whether a content of that size stands in the records themselves."""
    return octets <= MAX_INLINE_OCTETS and octets * destinations <= MAX_INLINE_TOTAL_OCTETS


def records(
    transaction: Transaction,
    session: Session,
    *,
    content: bytes | ContentReference,
    size: int,
    spam: bool,
    accepted_at: datetime,
) -> list[Outgoing]:
    """The messages to publish, all or none. `size` is the content's as it is stored."""
    time = Timestamp()
    time.FromDatetime(accepted_at)
    parameters = transaction.parameters
    record = QueuedMessage(
        schema_version=SCHEMA_VERSION,
        message_id=transaction.message_id,
        # Nothing can be told to who is no address, so its mail goes on as a null sender's does.
        sender=str(transaction.sender) if transaction.sender else "",
        ret=parameters.ret or "",
        envid=parameters.envid or "",
        body=parameters.body or "",
        smtputf8=parameters.smtputf8,
        accept_time=time,
        size=size,
        spam=spam,
        authenticated_account=str(session.account) if session.account else "",
        client_address=str(session.address),
    )
    if isinstance(content, bytes):
        record.inline_content = content
    else:
        record.content_reference.CopyFrom(content)
    outgoing = []
    for destination, recipients in _by_destination(transaction.recipients.values()).items():
        record.destination = destination
        del record.recipients[:]
        record.recipients.extend(recipients)
        outgoing.append(ready(record))
    return outgoing


def _by_destination(accepted: Iterable[AcceptedRecipient]) -> dict[str, list[Recipient]]:
    """The recipients of each destination; an address that two of them lead to stands there once.

    Addresses are compared as they are: local ones come folded from policy, and others are not ours
    to fold.
    """
    found: dict[str, list[Recipient]] = {}
    seen: set[Mailbox] = set()
    for recipient in accepted:
        for target in recipient.deliver_to:
            if target not in seen:
                seen.add(target)
                found.setdefault(target.domain, []).append(_recipient(recipient, str(target)))
    return found


def _recipient(accepted: AcceptedRecipient, address: str) -> Recipient:
    notify = accepted.parameters.notify
    return Recipient(
        address=address,
        original_address=str(accepted.mailbox),
        orcpt=accepted.parameters.orcpt or "",
        notify=[event for event in Notify if event in notify] if notify else (),
        state=RECIPIENT_STATE_PENDING,
    )
