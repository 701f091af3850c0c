"""How much content the process has in hand: octets in memory, and large contents under way.

Without a bound some hundred clients that send at the same time would take the memory of everybody,
or all be so slow that none gets through. Who comes too late is told to come back (452); a large
content waits for a moment first, unread, which the client notices as a slow network. One address
has a part of the large places only: a few slow connections of one client would hold all for hours.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from services.common.config.smtp import Limits
from services.ingress.gate import Address, Source, is_exempt, source_of

LARGE_PATIENCE_S: Final = 30.0
"""How long a large content waits for its turn; clients wait three minutes (RFC 5321 §4.5.3.2.5)."""

LARGE_SHARE: Final = 4
"""One large place in so many, at least one, is what an address may have."""

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
        self._large_of: Tally[Source] = Tally()
        self._queue: deque[_Turn] = deque()

    def reserve(self, client: Address) -> Reservation:
        """Room for one content of this client, none of it taken yet."""
        return Reservation(self, client)

    def change(self, octets: int) -> bool:
        """Take so much memory more, or give it back. False, and nothing taken, if there is none."""
        if octets > 0 and self._held + octets > self._limits().content_memory:
            EXCESS.labels("memory").inc()
            return False
        self._held += octets
        HELD_BYTES.set(self._held)
        return True

    async def enter_large(self, client: Address) -> bool:
        """Take a place for a large content, when it is its turn. False if that is not soon."""
        place = asyncio.get_running_loop().create_future()
        turn = _Turn(source_of(client), is_exempt(client, self._limits()), place)
        self._queue.append(turn)
        self._admit()
        entered = False
        try:
            async with asyncio.timeout(LARGE_PATIENCE_S):
                await place
            entered = True
        except TimeoutError:
            EXCESS.labels("large").inc()
        finally:
            if not entered:
                self._leave_queue(turn)
        return entered

    def _leave_queue(self, turn: _Turn) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.place.cancelled():
            # The place came at the very moment in which the patience ended.
            self._leave_large(turn.source)

    def leave_large(self, client: Address) -> None:
        """Give a place back."""
        self._leave_large(source_of(client))

    def _leave_large(self, source: Source) -> None:
        self._count_large(source, -1)
        self._admit()

    def _admit(self) -> None:
        """Give the places that are free to those who wait, in turn, but for who has his share."""
        most = self._limits().large_contents
        share = max(1, most // LARGE_SHARE)
        for turn in tuple(self._queue):
            if self._large >= most:
                break
            if turn.is_exempt or self._large_of[turn.source] < share:
                self._queue.remove(turn)
                if not turn.place.done():
                    turn.place.set_result(None)
                    self._count_large(turn.source, 1)

    def _count_large(self, source: Source, change: int) -> None:
        self._large += change
        self._large_of[source] += change
        if not self._large_of[source]:
            del self._large_of[source]
        LARGE_CONTENTS.set(self._large)


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A large content that waits for its place."""

    source: Source
    is_exempt: bool
    place: asyncio.Future[None]


class Reservation:
    """The room of one content. `release` gives all of it back, once or several times."""

    def __init__(self, capacity: Capacity, client: Address) -> None:
        self._capacity = capacity
        self._client = client
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
        self._is_large = self._is_large or await self._capacity.enter_large(self._client)
        return self._is_large

    def release(self) -> None:
        """Give everything back."""
        self.hold(0)
        if self._is_large:
            self._is_large = False
            self._capacity.leave_large(self._client)
