"""What is ready is taken from the queue, as much as there is room for, and kept in hand.

Guarantees: at most `delivery.concurrency.total` records are in hand, besides those that are on
their way back into the queue; while one is, the server is told so often enough that it gives it to
nobody else; when the process stops, records in hand are finished or given back at once.

Life cycle: `run` as a long-lived task → `drain` at the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from prometheus_client import Counter, Gauge

from services.common.jetstream import Delivery, JetStream, StoreError
from services.common.log import ERROR, INFO, WARNING, event
from services.common.queue.subjects import DELIVERY_CONSUMER, QUEUE_STREAM
from services.common.topology import ACK_WAIT_S

PULL_WAIT_S: Final = 30.0
MAX_PULL: Final = 100
"""Records asked for at once: at 256 KiB each what may be on its way is 25 MiB."""

GATHER_S: Final = 0.002
"""Places that become free one by one are asked for together."""

RETRY_S: Final = 0.5
REFRESH_S: Final = ACK_WAIT_S / 3
DRAIN_S: Final = 10.0
"""Attempts that take longer than this after the signal are broken off and tried again elsewhere."""

IN_HAND = Gauge("gatepost_delivery_records_in_hand", "Records that this process works on.")
HANDED_AGAIN = Counter(
    "gatepost_delivery_records_handed_again_total",
    "Records handed out to this process while it had them in hand; passed over.",
)
ABANDONED = Counter(
    "gatepost_delivery_records_abandoned_total",
    "Records whose handling failed; the server hands them out again.",
)

_log = logging.getLogger(__name__)


class Intake:
    """The flow of records into this process."""

    def __init__(
        self,
        store: JetStream,
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        room: Callable[[], int],
        drain_s: float = DRAIN_S,
    ) -> None:
        """`room` is how many records may be in hand."""
        self._consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
        self._handle = handle
        self._room = room
        self._drain_s = drain_s
        self._in_hand: dict[asyncio.Task[None], Delivery] = {}
        self._sequences: set[int] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self._pulling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Pull for ever."""
        refreshing = asyncio.create_task(self._refresh(), name="in-progress")
        try:
            while not self._stopping:
                self._pulling = asyncio.create_task(self._pull(), name="pull")
                await asyncio.wait({self._pulling})
                if not self._pulling.cancelled():
                    self._pulling.result()
            # Who refreshes is needed until the last record is out of hand.
            await asyncio.Event().wait()
        finally:
            refreshing.cancel()
            if self._pulling is not None:
                self._pulling.cancel()

    async def _pull(self) -> None:
        try:
            count = await self._places()
            async with aclosing(self._consumer.pull(count, wait_s=PULL_WAIT_S)) as deliveries:
                async for delivery in deliveries:
                    self._begin(delivery)
        except StoreError as error:
            event(_log, WARNING, "the queue cannot be read", reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _places(self) -> int:
        """How many records there is room for; waits until there is any."""
        while (free := self._room() - len(self._in_hand)) <= 0:
            self._changed.clear()
            await self._changed.wait()
        if free < MAX_PULL:
            await asyncio.sleep(GATHER_S)
            free = self._room() - len(self._in_hand)
        return max(1, min(free, MAX_PULL))

    def look_again(self) -> None:
        """There may be more room than before."""
        self._changed.set()

    def _begin(self, delivery: Delivery) -> None:
        if delivery.sequence in self._sequences:
            # A server that crashed has forgotten that we have it. Our word about it still counts.
            HANDED_AGAIN.inc()
            return
        self._sequences.add(delivery.sequence)
        task = asyncio.create_task(self._guarded(delivery), name="record")
        self._in_hand[task] = delivery
        IN_HAND.inc()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sequences.discard(self._in_hand.pop(task).sequence)
        IN_HAND.dec()
        self._changed.set()

    async def _guarded(self, delivery: Delivery) -> None:
        try:
            await self._handle(delivery)
        except StoreError as error:
            ABANDONED.inc()
            event(_log, WARNING, "record left", subject=delivery.subject, reason=str(error))
        except Exception:  # noqa: BLE001 - one record must not end the process for all the others
            ABANDONED.inc()
            event(_log, ERROR, "record left", subject=delivery.subject, exc_info=True)

    async def _refresh(self) -> None:
        while True:
            began = time.monotonic()
            for delivery in list(self._in_hand.values()):
                try:
                    await delivery.in_progress()
                except StoreError as error:
                    event(_log, INFO, "not refreshed", subject=delivery.subject, reason=str(error))
            await asyncio.sleep(max(1.0, REFRESH_S - (time.monotonic() - began)))

    async def drain(self) -> None:
        """Take no more, finish what is in hand, and give back what takes too long."""
        self._stopping = True
        if self._pulling is not None:
            self._pulling.cancel()
        try:
            await self._consumer.close()
        except StoreError as error:
            event(_log, INFO, "the consumer is not closed", reason=str(error))
        if self._in_hand:
            await asyncio.wait(set(self._in_hand), timeout=self._drain_s)
        left = dict(self._in_hand)
        for task in left:
            task.cancel()
        for delivery in left.values():
            try:
                await delivery.give_back()
            except StoreError as error:
                event(_log, INFO, "not given back", subject=delivery.subject, reason=str(error))
        if left:
            await asyncio.wait(set(left))
            event(_log, INFO, "records given back", count=len(left))
