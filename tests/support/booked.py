"""Mail in the queue that the ledger knows of: records with an id to find them by, and what peers
took of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from tests.support.delivery import mail, submit
from tests.support.ledger import HEADER, Ledger
from tests.support.smtp_peer import PeerMail

_BATCH = 100


def booked(
    ledger: Ledger,
    recipients: Iterable[str],
    *,
    octets: int = 0,
    accepted: bool = True,
    **fields: Any,
) -> list[QueuedMessage]:
    """A mail for each of the recipients, in the ledger as accepted or only as sent.

    `octets` make bodies longer.
    """
    records = []
    for recipient in recipients:
        mail_id = f"mail-{len(ledger.hashes)}"
        body = f"This is {mail_id}.\n{'x' * octets}\n".encode()
        ledger.sent(mail_id, body, [recipient])
        if accepted:
            ledger.was_accepted(mail_id)
        content = f"Subject: {mail_id}\n{HEADER}: {mail_id}\n\n".encode() + body
        records.append(mail(recipient, content=content.replace(b"\n", b"\r\n"), **fields))
    return records


def booked_id(content: bytes) -> str:
    """The id of such a mail: its first line is the subject."""
    return content.split(b"\r\n", 1)[0].removeprefix(b"Subject: ").decode()


async def submit_all(store: JetStream, records: Sequence[QueuedMessage]) -> None:
    """Put them into the queue, a batch at a time."""
    for start in range(0, len(records), _BATCH):
        await submit(store, *records[start : start + _BATCH])


def collect(ledger: Ledger, mails: Iterable[PeerMail]) -> None:
    """Note what a peer took as delivered."""
    for taken in mails:
        for recipient in taken.rcpt_to:
            ledger.was_delivered(taken.content, recipient)
