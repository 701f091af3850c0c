"""Records that were set aside in DEAD, and the mails that they belong to.

A record that a better release can read comes back into the queue, so the content of its mail stays
for as long as it is there. Whose it is stands in its subject, `dead.<number>-<message id>`, which
costs nothing to list; older ones are `dead.<number>` and tell it in a header alone.
"""

from __future__ import annotations

from typing import Final

from services.common.jetstream import JetStream
from services.common.mail.ids import is_message_id
from services.common.queue.subjects import DEAD_STREAM, QUEUE_STREAM, record_filter
from services.common.store import Outgoing

SUBJECT_HEADER: Final = "Gatepost-Subject"
REASON_HEADER: Final = "Gatepost-Reason"


def dead(sequence: int, subject: str, data: bytes, reason: str) -> Outgoing:
    """The message that sets aside what was found in QUEUE with this number on this subject."""
    mail = _mail_of(subject)
    name = f"{sequence}-{mail}" if mail else str(sequence)
    headers = {SUBJECT_HEADER: subject, REASON_HEADER: _header_value(reason)}
    return Outgoing(f"dead.{name}", data, headers)


async def mails_set_aside(store: JetStream) -> set[str]:
    """The ids of the mails of which a record is set aside. Raises `StoreError`."""
    mails: set[str] = set()
    offset = 0
    while subjects := await store.subjects(DEAD_STREAM, "dead.>", offset=offset):
        offset += len(subjects)
        for subject in subjects:
            _, _, mail = subject.partition("-")
            mails.add(mail or await _mail_by_header(store, subject))
    return mails - {""}


async def is_unfinished(store: JetStream, message_id: str) -> bool:
    """Whether any record of a mail is in the queue or set aside. Raises `StoreError`."""
    # A record that is set aside, or put back, is published there before it is removed here. So
    # one that moves in between is met by one of the three looks.
    return (
        await _is_queued(store, message_id)
        or message_id in await mails_set_aside(store)
        or await _is_queued(store, message_id)
    )


async def _is_queued(store: JetStream, message_id: str) -> bool:
    records = record_filter(message_id=message_id)
    return bool(await store.page(QUEUE_STREAM, records, after_sequence=0, count=1))


async def _mail_by_header(store: JetStream, subject: str) -> str:
    stored = await store.last(DEAD_STREAM, subject)
    return _mail_of(stored.headers.get(SUBJECT_HEADER, "")) if stored is not None else ""


def _mail_of(subject: str) -> str:
    """The mail of a subject of QUEUE; empty for one that is none of a record."""
    message_id = subject.rpartition(".")[2]
    return message_id if is_message_id(message_id) else ""


def _header_value(text: str) -> str:
    """A NATS header is one line of ASCII."""
    return " ".join(text.encode("ascii", "backslashreplace").decode("ascii").split())[:1000]
