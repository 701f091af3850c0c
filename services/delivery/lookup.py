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

from services.common.jetstream import JetStream, StoreError
from services.common.queue.subjects import QUEUE_STREAM, RecordKey, State
from services.common.store import Stored

WAITING: Final = (State.DEFERRED, State.HELD)
"""The states of a record that is in nobody's hands."""

MAX_RECORDS: Final = 200

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
