"""Changes that are under way on behalf of callers who may go away.

A call is cancelled when its deadline passes or its client ends, between any two steps. What is then
half-done would wait for hours in a state that nobody asked for.

Guarantees: work that was begun comes to an end that it chooses itself; only the end of the process,
after some seconds of patience, cuts it off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from services.common.log import INFO, event

T = TypeVar("T")

Work = Callable[[asyncio.Event], Coroutine[Any, Any, T]]
"""Something to do; it begins nothing new once the event is set: nobody waits for it any more."""

_log = logging.getLogger(__name__)


class UnderWay:
    """The work of all callers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def see_through(self, work: Work[T]) -> T:
        """Do something to its end, even if the caller is cancelled. Raises what it raises."""
        gone = asyncio.Event()
        task = asyncio.create_task(work(gone), name="change")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            task.add_done_callback(_tell)
            raise

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _tell(task: asyncio.Task[Any]) -> None:
    if task.cancelled() or task.exception() is None:
        return
    event(_log, INFO, "a change that nobody waited for failed", reason=str(task.exception()))
