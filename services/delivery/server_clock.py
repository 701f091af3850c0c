"""What time it is for the queue: that of the NATS server, which fires the schedules.

Due times are told to the server as points in time. If they were taken from this machine's clock,
one that jumps back an hour would make every retry due at once, and one that jumps ahead would give
mail up early. So the server is asked now and then, and in between the monotonic clock counts on.

Until the server was asked for the first time the machine's clock has to do; no mail is handled
before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Gauge

from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, event
from services.common.queue.subjects import QUEUE_STREAM

ASK_EVERY_S: Final = 30.0
ASK_AGAIN_S: Final = 1.0
MAX_ROUND_TRIP_S: Final = 2.0
"""An answer that took longer says too little about the time."""

DIFFERENCE = Gauge(
    "gatepost_delivery_clock_difference_seconds",
    "How far this machine's clock is ahead of the NATS server's.",
)

_log = logging.getLogger(__name__)


class ServerClock:
    """The server's time, continued."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: datetime | None = None
        self._told_at = 0.0
        self.known = asyncio.Event()
        """Set once the server has said what time it is."""

    def now(self) -> datetime:
        """The time, in UTC."""
        if self._told is None:
            return datetime.now(UTC)
        return self._told + timedelta(seconds=self._monotonic() - self._told_at)

    def tell(self, server_time: datetime, *, asked_at: float) -> None:
        """The server said this, when asked at that moment of the monotonic clock."""
        answered_at = self._monotonic()
        round_trip = answered_at - asked_at
        if self._told is not None and round_trip > MAX_ROUND_TRIP_S:
            return
        self._told, self._told_at = server_time, answered_at - round_trip / 2
        self.known.set()
        DIFFERENCE.set((datetime.now(UTC) - self.now()).total_seconds())

    async def follow(self, store: JetStream) -> None:
        """Ask the server for ever."""
        while True:
            asked_at = self._monotonic()
            try:
                self.tell(await store.server_time(QUEUE_STREAM), asked_at=asked_at)
            except StoreError as error:
                event(_log, INFO, "the server's time is not known", reason=str(error))
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                await asyncio.sleep(ASK_EVERY_S)
