"""Verdicts as events: published beside the mail's way, never on it.

A verdict is told to the stream EVENTS so that `ExplainMessage` and replays can find it. Nobody
waits for that: events stand in a bounded queue, gather for a moment, leave together, and what finds
the queue full, or is not acknowledged, is counted and gone. A history with a gap costs less than
mail that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from gatepost.queue.v1 import event_pb2
from services.common.jetstream import JetStream
from services.common.log import WARNING, event
from services.common.queue.subjects import EVENTS_STREAM, event_subject
from services.common.store import Missing, Outgoing, StoreError

MAX_WAITING = 2000
"""Some seconds of traffic; an event has a few KiB."""

GATHER_S = 0.005
"""One write and one read for what comes within this time cost less than those for each event: of a
busy process some percent. A mail takes longer to get on, so its verdict still stands before what
happens next to it."""

MAX_TOGETHER = 100
"""Each is published by itself, and has its own acknowledgement."""

VERDICT = "verdict"

IDLE_S = 1.0
"""The end of the stream is where nothing comes for so long: its server answers in milliseconds."""

EVENTS = Counter(
    "gatepost_policy_events_total",
    "Events about verdicts.",
    ["result"],  # published, dropped (the queue was full), failed
)

_log = logging.getLogger(__name__)


class Events:
    """The verdicts of this process on their way to EVENTS, and those that are there."""

    def __init__(self, store: JetStream) -> None:
        self._store = store
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)
        self._failing = False

    def tell(self, record: event_pb2.Event) -> None:
        """Publish a verdict soon, or never."""
        record.event_time.FromNanoseconds(time.time_ns())
        try:
            self._waiting.put_nowait((record.message_id, record.SerializeToString()))
        except asyncio.QueueFull:
            EVENTS.labels("dropped").inc()

    async def publish(self) -> None:
        """Work for ever."""
        while True:
            some = [await self._waiting.get()]
            await asyncio.sleep(GATHER_S)
            while len(some) < MAX_TOGETHER and not self._waiting.empty():
                some.append(self._waiting.get_nowait())
            await asyncio.gather(*(self._publish(*each) for each in some))
            for _ in some:
                self._waiting.task_done()

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        await self._waiting.join()

    async def verdict(self, message_id: str) -> event_pb2.Event | None:
        """The last verdict on a mail; None if there is none any more. Raises `StoreError`."""
        try:
            stored = await self._store.last(EVENTS_STREAM, event_subject(message_id, VERDICT))
        except Missing:
            return None
        return None if stored is None else event_pb2.Event.FromString(stored.data)

    async def verdicts(self, since: datetime) -> AsyncIterator[event_pb2.Event]:
        """The verdicts from a time on, up to now. Raises `StoreError`."""
        until = datetime.now(UTC)
        subjects = f"events.*.{VERDICT}"
        async with self._store.follow(EVENTS_STREAM, subjects, since=since) as kept:
            while True:
                try:
                    async with asyncio.timeout(IDLE_S):
                        stored = await anext(kept)
                except TimeoutError:
                    return
                if stored.time >= until:
                    return
                with contextlib.suppress(DecodeError):  # of a version that this one cannot read
                    yield event_pb2.Event.FromString(stored.data)

    async def _publish(self, message_id: str, data: bytes) -> None:
        try:
            await self._store.publish(Outgoing(event_subject(message_id, VERDICT), data))
        except StoreError as error:
            EVENTS.labels("failed").inc()
            # One line for an outage, not one for each mail of it.
            if not self._failing:
                event(_log, WARNING, "verdicts cannot be recorded", reason=str(error))
            self._failing = True
        else:
            self._failing = False
            EVENTS.labels("published").inc()
