"""The one order in which every process stops.

1. not ready: `/readyz` answers 503 and gRPC health NOT_SERVING; `stopping` is set already
2. `Stage.DRAIN` callbacks in the order of registration: stop accepting, finish what is in hand
3. `Stage.RPC` callbacks: gRPC servers stop
4. long-lived tasks are cancelled, then `Stage.CLOSE` callbacks in reverse order: channels, NATS
5. the HTTP port, last, so that the end can be watched; the skeleton does that

It begins at once. Whoever sends clients here has to have stopped it before, or they are refused: in
a cluster the pod's `preStop` waits until the end of a pod is known everywhere.

Guarantees: steps 2 and 3 together take at most `grace` seconds, except that step 3 always has
`CLOSE_SECONDS`; step 4 takes at most twice that. A callback that fails or is late is logged by
name and does not stop the others. Whoever supervises the process waits for `longest()`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum

from services.common.log import ERROR, WARNING, event
from services.common.readiness import Readiness
from services.common.tasks import Tasks

CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)

StopCallback = Callable[[], Awaitable[None]]


class Stage(StrEnum):
    """When a part is stopped; see the module's docstring."""

    DRAIN = "drain"
    RPC = "rpc"
    CLOSE = "close"


def longest(*, grace: float) -> float:
    """The seconds after which a stopping process has ended, whatever its parts do."""
    return grace + 4 * CLOSE_SECONDS


class Shutdown:
    """What has to be stopped, and the stopping of it. Times in seconds."""

    def __init__(self, readiness: Readiness, tasks: Tasks, *, grace: float) -> None:
        self._readiness = readiness
        self._tasks = tasks
        self._grace = grace
        self._callbacks: dict[Stage, list[tuple[str, StopCallback]]] = {s: [] for s in Stage}

    def register(self, stage: Stage, name: str, callback: StopCallback) -> None:
        """Have `callback` awaited in `stage`; `name` is for the log."""
        self._callbacks[stage].append((name, callback))

    async def run(self) -> bool:
        """Steps 1 to 4. False if a task would not end, and the process must be ended by force."""
        self._readiness.stop()
        now = asyncio.get_running_loop().time
        deadline = now() + self._grace
        await self._stop(Stage.DRAIN, self._callbacks[Stage.DRAIN], deadline=deadline)
        # Calls in hand use what NATS and channels still give; those stay until calls are done.
        deadline = max(deadline, now() + CLOSE_SECONDS)
        await self._stop(Stage.RPC, self._callbacks[Stage.RPC], deadline=deadline)
        ended = await self._tasks.cancel(seconds=CLOSE_SECONDS)
        deadline = now() + CLOSE_SECONDS
        await self._stop(Stage.CLOSE, reversed(self._callbacks[Stage.CLOSE]), deadline=deadline)
        return ended

    async def _stop(
        self, stage: Stage, parts: Iterable[tuple[str, StopCallback]], *, deadline: float
    ) -> None:
        for name, callback in parts:
            try:
                async with asyncio.timeout_at(deadline):
                    await callback()
            except TimeoutError:
                event(_log, WARNING, "part did not stop in time", stage=stage, part=name)
            except Exception:  # noqa: BLE001 - the other parts have to be stopped all the same
                event(_log, ERROR, "part cannot be stopped", stage=stage, part=name, exc_info=True)
