"""Where else records stand in the queue, asked for many of them together.

While one question is on its way the next gathers; when nothing is on its way a question goes out at
once. With a pile of mail in the queue each record would otherwise cost two calls before anything is
done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from gatepost.queue.v1.event_pb2 import AttemptEvent, Event
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import Delivery, JetStream, StoreError
from services.common.queue.subjects import (
    EVENTS_STREAM,
    QUEUE_STREAM,
    RecordKey,
    State,
    event_subject,
)
from services.common.store import Stored

WAITING: Final = (State.DEFERRED, State.HELD)
"""The states of a record that is in nobody's hands."""

MAX_RECORDS: Final = 200
MAX_EVENTS: Final = 1000

Found = Mapping[State, Stored]


@dataclass(slots=True)
class _Question:
    key: RecordKey
    answer: asyncio.Future[Found]


class Lookup:
    """Asks for the waiting states of records."""

    def __init__(self, store: JetStream) -> None:
        self._store = store
        self._questions: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None

    async def waiting(self, key: RecordKey) -> Found:
        """In which of the waiting states the record stands. Raises `StoreError`."""
        question = _Question(key, asyncio.get_running_loop().create_future())
        self._questions.append(question)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="lookup")
        return await question.answer

    async def went_on(self, delivery: Delivery, key: RecordKey, record: QueuedMessage) -> bool:
        """Whether a record that is handed out again came back from deferral in the meantime.

        It is due once more, or an event tells of an attempt that this state knows nothing of. For
        the few that are handed out again only: it costs two requests. Raises `StoreError`.
        """
        due = await self._store.last(QUEUE_STREAM, delivery.subject)
        if due is not None and due.sequence > delivery.sequence:
            return True
        return any(attempt.attempt > record.attempts for attempt in await self._attempts(key))

    async def is_finished(self, key: RecordKey) -> bool:
        """Whether an attempt was the record's last. It costs a request. Raises `StoreError`."""
        return any(not attempt.HasField("due_time") for attempt in await self._attempts(key))

    async def _attempts(self, key: RecordKey) -> list[AttemptEvent]:
        subject = event_subject(key.message_id, "attempt")
        told = await self._store.page(EVENTS_STREAM, subject, after_sequence=0, count=MAX_EVENTS)
        attempts = [attempt for stored in told if (attempt := _attempt(stored)) is not None]
        return [attempt for attempt in attempts if attempt.destination == key.destination]

    async def _ask_all(self) -> None:
        while self._questions:
            asked = self._questions[:MAX_RECORDS]
            del self._questions[:MAX_RECORDS]
            try:
                await self._ask(asked)
            except StoreError as error:
                for question in asked:
                    if not question.answer.done():
                        question.answer.set_exception(error)

    async def _ask(self, asked: list[_Question]) -> None:
        # Two hands may hold the same record, after its time in hand ran out.
        subjects = {question.key.subject(state) for question in asked for state in WAITING}
        found = await self._store.last_of(QUEUE_STREAM, sorted(subjects))
        for question in asked:
            states = {state: found.get(question.key.subject(state)) for state in WAITING}
            if not question.answer.done():
                question.answer.set_result(
                    {state: stored for state, stored in states.items() if stored is not None}
                )


def _attempt(stored: Stored) -> AttemptEvent | None:
    try:
        return Event.FromString(stored.data).attempt
    except DecodeError:
        return None
