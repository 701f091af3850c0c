"""Messages of many records published together: one sync of the disk for all instead of one for
each.

While a batch is on its way the next one gathers; when nothing is on its way a message goes out at
once. So a lone message waits for nobody, and under load the server is asked as often as it can
answer.

Guarantees: each caller learns the fate of its own message; one that fails its condition, or that
the server will not take, costs the others a second try, not their success. Nothing goes out any
more for a caller that was cancelled: somebody else may have its record in hand by then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from services.common.jetstream import (
    EXPECTED_ON_SUBJECT,
    Conflict,
    JetStream,
    Outgoing,
    Refused,
    StoreError,
)

MAX_MESSAGES: Final = 200
"""The server takes 1,000; from here on nothing is gained."""

MAX_OCTETS: Final = 1024 * 1024

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


@dataclass(slots=True)
class _Waiting:
    message: Outgoing
    expected: int
    on_subject: str
    done: asyncio.Future[None]


class Batcher:
    """Publishes to one stream, which must allow atomic batches."""

    def __init__(self, store: JetStream) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def publish(
        self, message: Outgoing, *, expected_last_sequence: int, on_subject: str = ""
    ) -> None:
        """Publish if the last message on a subject, its own unless another is named, has this
        number (0: there is none).

        Raises `Conflict` if not, and other `StoreError`s.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        on_subject = on_subject or message.subject
        self._waiting.append(_Waiting(message, expected_last_sequence, on_subject, done))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="batch")
        await done

    async def _send_all(self) -> None:
        while batch := self._next():
            try:
                await self._send(batch)
            except StoreError as error:
                for each in batch:
                    _fail(each, error)

    def _next(self) -> list[_Waiting]:
        """As many of those who still wait as one batch holds; never two on one subject."""
        self._waiting = [each for each in self._waiting if not each.done.done()]
        batch: list[_Waiting] = []
        subjects: set[str] = set()
        octets = 0
        for each in self._waiting:
            octets += len(each.message.data)
            full = len(batch) >= MAX_MESSAGES or octets > MAX_OCTETS
            if batch and (full or each.message.subject in subjects):
                break
            batch.append(each)
            subjects.add(each.message.subject)
        del self._waiting[: len(batch)]
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        try:
            await self._store.publish_batch([_conditional(each) for each in batch])
        except (Conflict, Refused):
            if len(batch) == 1:
                raise
            # All or none: whose condition failed, or what was refused, is found out one by one.
            await asyncio.gather(*(self._send_alone(each) for each in batch))
            return
        for each in batch:
            if not each.done.done():
                each.done.set_result(None)

    async def _send_alone(self, waiting: _Waiting) -> None:
        if waiting.done.done():
            return
        try:
            await self._send([waiting])
        except StoreError as error:
            _fail(waiting, error)


def _conditional(waiting: _Waiting) -> Outgoing:
    message = waiting.message
    condition = {_EXPECTED: str(waiting.expected), EXPECTED_ON_SUBJECT: waiting.on_subject}
    headers = {**message.headers, **condition}
    return Outgoing(message.subject, message.data, headers)


def _fail(waiting: _Waiting, error: StoreError) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
