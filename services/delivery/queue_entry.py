"""A stored record as operators see it: without content."""

from __future__ import annotations

from typing import Final

from gatepost.queue.v1.queue_pb2 import (
    QUEUE_STATE_DEFERRED,
    QUEUE_STATE_HELD,
    QUEUE_STATE_READY,
    QueueEntry,
    QueueState,
)
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.queue.record import UnreadableRecord, read_record
from services.common.queue.subjects import RecordKey, State, parse_record_subject
from services.common.store import Stored

STATES: Final[dict[State, QueueState.ValueType]] = {
    State.READY: QUEUE_STATE_READY,
    State.DEFERRED: QUEUE_STATE_DEFERRED,
    State.HELD: QUEUE_STATE_HELD,
}
BY_NUMBER: Final = {number: state for state, number in STATES.items()}

UNREADABLE: Final = "cannot be read, and will be set aside when it is due"


def entry_of(stored: Stored) -> QueueEntry:
    """The entry of a record. One that cannot be read is shown as far as its subject tells."""
    state, key = parse_record_subject(stored.subject)
    try:
        record = read_record(stored.data, key)
    except UnreadableRecord as error:
        return QueueEntry(
            message_id=key.message_id,
            destination=key.destination,
            state=STATES[state],
            wait_reason=f"{UNREADABLE}: {error}",
        )
    return _entry(record, key, state)


def _entry(record: QueuedMessage, key: RecordKey, state: State) -> QueueEntry:
    entry = QueueEntry(
        message_id=key.message_id,
        destination=key.destination,
        state=STATES[state],
        sender=record.sender,
        recipients=record.recipients,
        size=record.size,
        accept_time=record.accept_time,
        attempts=record.attempts,
    )
    if state is State.DEFERRED:
        entry.due_time.CopyFrom(record.due_time)
    if state is not State.READY:
        entry.wait_reason = record.wait_reason
    return entry
