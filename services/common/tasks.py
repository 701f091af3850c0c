"""The long-lived tasks of a process: each has a name, and the first that fails ends the process."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from services.common.log import CRITICAL, ERROR, event

_log = logging.getLogger(__name__)


class Tasks:
    """Named tasks within one `asyncio.TaskGroup`.

    A failure does not cancel the others: it sets `stopping`, so that they end in the order of
    the shutdown and with what they hold in hand. Ending before `stopping` is a failure too.
    """

    def __init__(self, group: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        self._group = group
        self._stopping = stopping
        self._running: set[asyncio.Task[None]] = set()
        self.failed = ""  # the name of the first task that failed

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(self._guard(name, work), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel(self, *, seconds: float) -> bool:
        """Cancel those that still run and wait for them; false if one would not end in time."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if not running:
            return True
        _, left = await asyncio.wait(running, timeout=seconds)
        for task in left:
            event(_log, ERROR, "task ignores its cancellation", task=task.get_name())
        return not left

    async def _guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - whatever it was, this process cannot go on without it
            event(_log, CRITICAL, "task failed", task=name, exc_info=True)
        else:
            if self._stopping.is_set():
                return
            event(_log, CRITICAL, "task ended, which it must not", task=name)
        self.failed = self.failed or name
        self._stopping.set()
