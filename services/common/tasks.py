"""The long-lived tasks of a process: each has a name, and the first that fails ends the process."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from services.common.log import CRITICAL, ERROR, event

CANCEL_AGAIN_SECONDS = 0.5

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
        """Cancel those that still run and wait for them; false if one would not end in time.

        Again and again: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes at the
        moment in which it has its result.
        """
        running = set(self._running)
        deadline = time.monotonic() + seconds
        while running and time.monotonic() < deadline:
            for task in running:
                task.cancel()
            left = max(0.0, deadline - time.monotonic())
            _, running = await asyncio.wait(running, timeout=min(left, CANCEL_AGAIN_SECONDS))
        for task in running:
            event(_log, ERROR, "task ignores its cancellation", task=task.get_name())
        return not running

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
