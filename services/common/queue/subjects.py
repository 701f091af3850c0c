"""The subjects of the streams: the state of a record is part of its subject.

    queue.ready.<destination>.<id>      due now; what the consumer `delivery` hands out
    queue.deferred.<destination>.<id>   waits: the server itself moves it to `ready` when it is due
    queue.held.<destination>.<id>       an operator holds it
    content.<id>.<n>                    chunk n of a content, from 1
    events.<id>.<kind>                  something that happened to a mail
    dead.<number>-<id>                  a record that could not be read

A subject never holds an address: `<destination>` is one token made of a domain, `<id>` has only
[a-z0-9-].
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from services.common.mail.destination import destination_of_token, subject_token
from services.common.mail.ids import is_message_id

QUEUE_STREAM: Final = "QUEUE"
CONTENT_STREAM: Final = "CONTENT"
EVENTS_STREAM: Final = "EVENTS"
DEAD_STREAM: Final = "DEAD"
DELIVERY_CONSUMER: Final = "delivery"
DEFERRED_COUNTER: Final = "count-deferred"
HELD_COUNTER: Final = "count-held"


# The same destinations come again and again, and checking a domain costs more than all the rest.
_token_of = lru_cache(maxsize=4096)(subject_token)
_destination_of = lru_cache(maxsize=4096)(destination_of_token)


class State(StrEnum):
    """The states of a record."""

    READY = "ready"
    DEFERRED = "deferred"
    HELD = "held"


class RecordKey(NamedTuple):
    """What names a record: a mail has one record for each destination."""

    destination: str
    message_id: str

    def subject(self, state: State) -> str:
        """The subject of this record in a state."""
        if not is_message_id(self.message_id):
            raise ValueError(f"not a message id: {self.message_id!r}")
        return f"queue.{state}.{_token_of(self.destination)}.{self.message_id}"


def parse_record_subject(subject: str) -> tuple[State, RecordKey]:
    """The state and key that a subject of the QUEUE stream tells. Raises ValueError."""
    prefix, state, token, message_id = subject.split(".")
    if prefix != "queue" or not is_message_id(message_id):
        raise ValueError(f"not a subject of the queue: {subject!r}")
    return State(state), RecordKey(_destination_of(token), message_id)


def record_filter(
    *, state: State | None = None, destination: str = "", message_id: str = ""
) -> str:
    """The subject filter for some of the records; what is not given matches all."""
    token = subject_token(destination) if destination else "*"
    if message_id and not is_message_id(message_id):
        raise ValueError(f"not a message id: {message_id!r}")
    return f"queue.{state or '*'}.{token}.{message_id or '*'}"


def schedule_headers(key: RecordKey, due: datetime) -> dict[str, str]:
    """The headers that make the server move a deferred record to `ready` at its time (ADR-51).

    The server takes whole seconds; a part of a second is cut off.
    """
    at = due.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": key.subject(State.READY)}


def content_subject(content_id: str, chunk: int) -> str:
    """The subject of one chunk of a content, counted from 1."""
    return f"content.{content_id}.{chunk}"


def content_filter(content_id: str) -> str:
    """The filter for all chunks of a content."""
    return f"content.{content_id}.*"


def event_subject(message_id: str, kind: str) -> str:
    """The subject of an event: `verdict`, `attempt`, `notification`, `operator`."""
    return f"events.{message_id}.{kind}"


def event_filter(message_id: str = "") -> str:
    """The filter for the events of a mail, or of all."""
    return f"events.{message_id or '*'}.*"
