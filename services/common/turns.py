"""Turns on the event loop: work that can wait is done a slice at a time, so that what cannot waits
for one slice and not for all of it.

A process that has a thousand things to do in one moment would do them in the order in which they
became ready, and whoever comes then waits for the last of them. Work in slices asks for a turn
before each: a few are given in a round of the loop, so that everything else that is ready is served
in between. While calls keep coming in (`called`), one is given now and then: a call that can be
answered at once comes first, and taking calls in is short.

Who has begun goes before who has not: things get done one after the other and not all at the end.
Nobody starves: a turn is held back for `MAX_HOLD_S` at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

TURNS_IN_ROUND = 4
"""A slice is some tenths of a millisecond, and a round by itself a tenth."""

QUIET_S = 0.001
"""When calls come closer than this, more of them wait to be taken in."""

MAX_HOLD_S = 0.002
"""A slice takes a tenth of this, so calls lose little by it, and the work in slices goes on."""

_LOOK_AGAIN_S = 0.001


class Turns:
    """Gives turns; of one event loop at a time."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()
        self._left = TURNS_IN_ROUND
        """Turns to be had in this round without waiting; fewer than all: the next is arranged."""
        self._called = float("-inf")
        self._given = float("-inf")

    def called(self) -> None:
        """A call has come in. Whatever it needs is more urgent than the next slice."""
        self._called = self._clock()

    async def begin(self) -> None:
        """Wait for the first turn of a piece of work."""
        await self._take(self._new)

    async def next(self) -> None:
        """Wait for another turn of a piece of work that has begun."""
        await self._take(self._begun)

    async def _take(self, line: deque[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._left = loop, TURNS_IN_ROUND
            self._begun.clear()
            self._new.clear()
        if self._left == TURNS_IN_ROUND:
            loop.call_soon(self._give)
        if self._left > 0 and not self._holds_back():
            self._left -= 1
            self._given = self._clock()
            return
        self._left = 0
        place: asyncio.Future[None] = loop.create_future()
        line.append(place)
        await place

    def _give(self) -> None:
        """In each round of the loop, until nobody waits any more."""
        loop = self._loop
        if loop is None:
            return
        self._left = 0
        for _ in range(TURNS_IN_ROUND):
            self._drop_cancelled()
            line = self._begun or self._new
            if not line:
                self._left = TURNS_IN_ROUND
                return
            if self._holds_back():
                loop.call_later(_LOOK_AGAIN_S, self._give)
                return
            self._given = self._clock()
            line.popleft().set_result(None)
        loop.call_soon(self._give)

    def _holds_back(self) -> bool:
        now = self._clock()
        return now - self._called < QUIET_S and now - self._given < MAX_HOLD_S

    def _drop_cancelled(self) -> None:
        for line in (self._begun, self._new):
            while line and line[0].done():
                line.popleft()
