"""How many attempts at one next hop may run at a time, and what becomes of those that must wait.

Each next hop has a window: it begins with `initial`, grows while attempts succeed, up to `limit`,
and halves when a session fails. A record that finds the window full waits in hand if its turn will
come within `MAX_WAIT_S`; otherwise it is to be parked in the queue until about when its turn comes,
so that a slow or dead place holds nothing that others need. Where a rate is set, attempts begin
evenly spread. A next hop that does not answer, or says that it does not want us now, is left alone
for a while that doubles with each failure.

Pure but for the futures of those who wait; the time is passed in. One per process.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Gauge

from services.common.config.delivery import Delivery
from services.common.mail.reply import Reply

MAX_WAIT_S: Final = 1.0
"""A record in hand occupies one of the places that fresh mail for others needs."""

MIN_PARK_S: Final = 1.0
MAX_PARK_S: Final = 300.0
"""A guess of when the turn comes is wrong in the end; later than this is too late to find out."""

EARLY_S: Final = 1.0
"""How far ahead of its even spread a mail may go where a rate is set: the first few of a burst."""

_UNKNOWN_ATTEMPT_S: Final = 0.1
"""What an attempt is taken to last before the first has ended."""

MANY_DEFERRALS: Final = 10
"""In a row: the next mail for this next hop will most likely be deferred too."""

_SMOOTHING: Final = 0.2
_FORGET_AFTER_S: Final = 600.0
"""After this without use a next hop may be forgotten; and its last failure says nothing of now."""
_MAX_IDLE_PLACES: Final = 10_000

ACTIVE = Gauge("gatepost_delivery_sessions_active", "Attempts at next hops that run now.")
WAITING = Gauge("gatepost_delivery_slots_waiting", "Records in hand that wait for their turn.")


@dataclass(frozen=True, slots=True)
class Parked:
    """No turn for now: try again after so many seconds."""

    seconds: float
    failure: Reply | None = None
    """What the last session failed with, if the next hop is left alone because of that or just
    was: mail may be given up over it."""


@dataclass(slots=True)
class _Place:
    """What is known of one next hop. Times are those of a monotonic clock, in seconds."""

    key: str
    window: float
    active: int = 0
    attempt_s: float = 0.0  # smoothed; 0: none has ended yet
    failures: int = 0
    left_alone_until: float = 0.0
    failure: Reply | None = None
    parked: float = 0.0  # how many were parked, less those that have had their turn since
    parked_at: float = 0.0  # up to when those are taken off
    used: float = 0.0
    next_begin: float = 0.0  # when the next attempt may begin, by the rate that is set
    moved: float = 0.0  # when an attempt last ended, or the first of those that run began
    deferrals: int = 0  # attempts in a row that ended with "not now" for all recipients
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque)

    def stuck_s(self, now: float) -> float:
        """For how long attempts have been running of which none has ended."""
        return now - self.moved if self.active else 0.0

    def rate(self, now: float) -> float:
        """Attempts in a second, if all of the window is used."""
        # What has not ended may end in a moment: a first guess must not send mail away for long.
        stuck_s = min(self.stuck_s(now), MAX_WAIT_S)
        seconds = self.attempt_s or max(_UNKNOWN_ATTEMPT_S, stuck_s)
        return max(1.0, self.window) / max(seconds, 0.001)


class Slots:
    """The windows of all next hops."""

    def __init__(
        self,
        settings: Callable[[], Delivery],
        clock: Callable[[], float],
    ) -> None:
        self.on_left_alone: Callable[[str, float, Reply], None] = lambda *_: None
        """Told the next hop, for how many seconds it is left alone, and what it failed with."""
        self._settings = settings
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._waiting = 0

    async def take(self, key: str) -> Parked | None:
        """Wait for a turn at a next hop, shortly. None: go, and `give` afterwards."""
        now = self._clock()
        place = self._place(key, now)
        if place.left_alone_until > now:
            return Parked(self._turn(place, place.left_alone_until, now), place.failure)
        if place.next_begin > now + EARLY_S:
            return Parked(self._turn(place, place.next_begin - EARLY_S, now))
        if self._has_room(place) and not place.waiting:
            self._begin(place)
            return None
        if self._may_wait(place, now) and await self._wait(place):
            return None
        now = self._clock()
        known = now - place.left_alone_until < _FORGET_AFTER_S
        failure = place.failure if known else None
        return Parked(self._turn(place, max(now, place.left_alone_until), now), failure)

    def give(
        self, key: str, seconds: float, *, failure: Reply | None, deferred: bool = False
    ) -> None:
        """An attempt has ended after `seconds`; `failure` if no session could be had, `deferred` if
        every recipient was answered "not now"."""
        now = self._clock()
        place = self._place(key, now)
        self._end(place, now)
        place.deferrals = place.deferrals + 1 if deferred else 0
        if failure is None:
            known = place.attempt_s or seconds
            place.attempt_s = max(known + _SMOOTHING * (seconds - known), 0.0001)
            place.window = min(self._limit(), place.window + 1 / place.window)
            place.failures, place.failure = 0, None
        else:
            place.window = max(1.0, place.window / 2)
            if place.left_alone_until <= now:  # not one of those that ran when the first failed
                place.failures += 1
                backoff = self._settings().backoff
                doubled = backoff.initial.total_seconds() * 2 ** min(place.failures - 1, 32)
                wait = min(doubled, backoff.limit.total_seconds())
                self._leave_alone(place, now + wait, failure)
                self.on_left_alone(key, wait, failure)
        self._wake(place)

    def defers_all(self, key: str) -> bool:
        """Whether a next hop takes nothing for now, though it can be talked to."""
        place = self._places.get(key)
        return place is not None and place.deferrals >= MANY_DEFERRALS

    def leave_alone(self, key: str, seconds: float, failure: Reply) -> None:
        """Another replica found that a next hop fails."""
        now = self._clock()
        until = now + min(seconds, self._settings().backoff.limit.total_seconds())
        place = self._place(key, now)
        if until > place.left_alone_until:
            self._leave_alone(place, until, failure)

    def try_again(self, key: str) -> None:
        """Leave a next hop alone no longer. It has failed as often as before, until it succeeds."""
        place = self._places.get(key)
        if place is not None:
            place.left_alone_until = -math.inf  # nor is mail given up over what it failed with

    def _leave_alone(self, place: _Place, until: float, failure: Reply) -> None:
        place.failure = failure
        place.left_alone_until = until
        while place.waiting:
            place.waiting.popleft().set_result(False)

    def _turn(self, place: _Place, begin: float, now: float) -> float:
        """Seconds until one more record may have its turn; turns are given from `begin` on."""
        rate = self._rate(place, now)
        had_their_turn = max(0.0, now - place.parked_at) * rate
        place.parked = max(0.0, place.parked - had_their_turn) + 1
        place.parked_at = begin
        seconds = begin - now + place.parked / rate
        # Those beyond come back together and ask again.
        return min(max(seconds, MIN_PARK_S), max(MAX_PARK_S, begin - now))

    def _end(self, place: _Place, now: float) -> None:
        place.active -= 1
        place.moved = now
        ACTIVE.dec()

    def _may_wait(self, place: _Place, now: float) -> bool:
        if place.stuck_s(now) > MAX_WAIT_S:
            return False
        if not place.attempt_s:
            # Nothing is known of it yet. Most are fast; if not, there is room for others left.
            return self._waiting < self._settings().concurrency.total // 2
        return (len(place.waiting) + 1) / self._rate(place, now) <= MAX_WAIT_S

    def _begin(self, place: _Place) -> None:
        now = self._clock()
        if not place.active:
            place.moved = now
        place.active += 1
        place.next_begin = max(place.next_begin, now) + self._apart_s(place.key)
        ACTIVE.inc()

    async def _wait(self, place: _Place) -> bool:
        """Wait for a turn; false if it did not come in time."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        place.waiting.append(turn)
        self._waiting += 1
        WAITING.inc()
        try:
            await asyncio.wait({turn}, timeout=MAX_WAIT_S)
        except asyncio.CancelledError:
            if turn.done() and turn.result():
                self._end(place, self._clock())
                self._wake(place)
            raise
        finally:
            self._waiting -= 1
            WAITING.dec()
            if not turn.done():
                place.waiting.remove(turn)
        return turn.done() and turn.result()

    def _wake(self, place: _Place) -> None:
        while place.waiting and self._has_room(place):
            self._begin(place)
            place.waiting.popleft().set_result(True)

    def _apart_s(self, key: str) -> float:
        """How far apart attempts at a next hop begin; 0: no rate is set."""
        rate = self._settings().rate
        messages = rate.exceptions.get(key, rate.messages)
        return rate.period.total_seconds() / messages if messages else 0.0

    def _rate(self, place: _Place, now: float) -> float:
        """How many attempts in a second there can be and may be."""
        apart_s = self._apart_s(place.key)
        return min(place.rate(now), 1 / apart_s) if apart_s else place.rate(now)

    def _has_room(self, place: _Place) -> bool:
        return place.active < int(min(place.window, self._limit()))

    def _limit(self) -> float:
        return float(self._settings().concurrency.limit)

    def _place(self, key: str, now: float) -> _Place:
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MAX_IDLE_PLACES:
                self._forget(now)
            place = self._places[key] = _Place(key, float(self._settings().concurrency.initial))
        place.used = now
        return place

    def _forget(self, now: float) -> None:
        for key, place in list(self._places.items()):
            if not place.active and not place.waiting and now - place.used > _FORGET_AFTER_S:
                del self._places[key]
