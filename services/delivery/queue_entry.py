"""What is stored as operators see it, without content; and what they ask for, checked."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from google.protobuf.message import DecodeError

from gatepost.queue.v1.event_pb2 import Event
from gatepost.queue.v1.queue_pb2 import (
    QUEUE_STATE_DEFERRED,
    QUEUE_STATE_HELD,
    QUEUE_STATE_READY,
    QUEUE_STATE_UNSPECIFIED,
    DeadRecord,
    QueueEntry,
    QueueState,
    Suspension,
)
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.log import WARNING, event
from services.common.queue.record import UnreadableRecord, read_record
from services.common.queue.subjects import RecordKey, State, parse_record_subject
from services.common.rpc.errors import invalid_argument
from services.common.store import Stored
from services.delivery.dead import REASON_HEADER, SUBJECT_HEADER

STATES: Final[dict[State, QueueState.ValueType]] = {
    State.READY: QUEUE_STATE_READY,
    State.DEFERRED: QUEUE_STATE_DEFERRED,
    State.HELD: QUEUE_STATE_HELD,
}
BY_NUMBER: Final = {number: state for state, number in STATES.items()}

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000

UNREADABLE: Final = "cannot be read, and will be set aside when it is due"

_log = logging.getLogger(__name__)


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


def dead_record(stored: Stored) -> DeadRecord:
    """The entry of a record that was set aside."""
    record = DeadRecord(
        sequence=stored.sequence,
        subject=stored.headers.get(SUBJECT_HEADER, ""),
        reason=stored.headers.get(REASON_HEADER, ""),
        size=len(stored.data),
    )
    record.dead_time.FromDatetime(stored.time)
    return record


def suspension_entry(destination: str, until: datetime | None) -> Suspension:
    """The entry of a destination that is suspended."""
    entry = Suspension(destination=destination)
    if until is not None:
        entry.until_time.FromDatetime(until)
    return entry


def read_event(stored: Stored) -> Event | None:
    """The event that was stored; None, and a line in the log, for what is none."""
    try:
        return Event.FromString(stored.data)
    except DecodeError as error:
        event(_log, WARNING, "not an event", subject=stored.subject, reason=str(error))
        return None


def page_size(asked: int) -> int:
    """The size of a page. Raises `RpcFailure`."""
    if asked > MAX_PAGE_SIZE:
        raise invalid_argument(f"page_size is at most {MAX_PAGE_SIZE}", reason="INVALID_PAGE_SIZE")
    return asked or DEFAULT_PAGE_SIZE


def after_token(token: str) -> int:
    """The sequence after which a page begins. Raises `RpcFailure`."""
    if token and not (token.isdecimal() and token.isascii() and len(token) < 20):
        raise invalid_argument("page_token is not one of ours", reason="INVALID_PAGE_TOKEN")
    return int(token or 0)


def queue_state(number: QueueState.ValueType) -> State | None:
    """The state that is asked for; None for any. Raises `RpcFailure`."""
    if number == QUEUE_STATE_UNSPECIFIED:
        return None
    state = BY_NUMBER.get(number)
    if state is None:
        raise invalid_argument(f"there is no state {number}", reason="INVALID_STATE")
    return state
