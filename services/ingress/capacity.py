"""How much content the process has in hand: octets in memory, and large contents under way.

Without a bound some hundred clients that send at the same time would take the memory of everybody,
or all be so slow that none gets through. Who comes too late is told to come back (452); a large
content waits for a moment first, unread, which the client notices as a slow network.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge

from services.common.config.smtp import Limits

LARGE_PATIENCE_S: Final = 30.0
"""How long a large content waits for its turn; clients wait three minutes (RFC 5321 §4.5.3.2.5)."""

HELD_BYTES = Gauge(
    "gatepost_ingress_content_held_bytes", "Octets of contents that are in memory just now."
)
LARGE_CONTENTS = Gauge(
    "gatepost_ingress_large_contents", "Contents that are being stored while they arrive."
)
EXCESS = Counter(
    "gatepost_ingress_excess_contents_total",
    "Contents that were put off because too much was in hand.",
    ["limit"],  # memory, large
)


class Capacity:
    """The room of this process. `limits` gives the limits as they are now."""

    def __init__(self, limits: Callable[[], Limits]) -> None:
        self._limits = limits
        self._held = 0
        self._large = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    def reserve(self) -> Reservation:
        """Room for one content, none of it taken yet."""
        return Reservation(self)

    def change(self, octets: int) -> bool:
        """Take so much memory more, or give it back. False, and nothing taken, if there is none."""
        if octets > 0 and self._held + octets > self._limits().content_memory:
            EXCESS.labels("memory").inc()
            return False
        self._held += octets
        HELD_BYTES.set(self._held)
        return True

    async def enter_large(self) -> bool:
        """Take a place for a large content, when it is its turn. False if that is not soon."""
        if self._large < self._limits().large_contents and not self._queue:
            self._set_large(self._large + 1)
            return True
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        entered = False
        try:
            async with asyncio.timeout(LARGE_PATIENCE_S):
                await turn
            entered = True
        except TimeoutError:
            EXCESS.labels("large").inc()
        finally:
            if not entered:
                self._leave_queue(turn)
        return entered

    def _leave_queue(self, turn: asyncio.Future[None]) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.cancelled():
            # The place came at the very moment in which the patience ended.
            self.leave_large()

    def leave_large(self) -> None:
        """Give a place back."""
        self._set_large(self._large - 1)
        while self._queue and self._large < self._limits().large_contents:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._set_large(self._large + 1)

    def _set_large(self, count: int) -> None:
        self._large = count
        LARGE_CONTENTS.set(count)


class Reservation:
    """The room of one content. `release` gives all of it back, once or several times."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._octets = 0
        self._is_large = False

    def hold(self, octets: int) -> bool:
        """Have so many octets in memory from now on. False if there is no room for more."""
        if not self._capacity.change(octets - self._octets):
            return False
        self._octets = octets
        return True

    async def enter_large(self) -> bool:
        """Become a large content. False if there are too many."""
        self._is_large = self._is_large or await self._capacity.enter_large()
        return self._is_large

    def release(self) -> None:
        """Give everything back."""
        self.hold(0)
        if self._is_large:
            self._is_large = False
            self._capacity.leave_large()
