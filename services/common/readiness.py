"""Whether a process should be sent work: named conditions, each met or not, with the reason.

A component names its condition when it is made and reports on it for as long as it lives; the
process is ready when every condition is met. `/readyz` and the gRPC health service both answer
from here, so they cannot disagree. Life cycle of the whole: `start` is unmet until the service
has started; `stop()` makes it unready for good. All of it belongs to the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable

from services.common.log import INFO, event

_log = logging.getLogger(__name__)


class Condition:
    """One thing that has to be true before work may come, such as "the queue is reachable"."""

    def __init__(self, name: str, reason: str, changed: Callable[["Condition"], None]) -> None:
        self.name = name
        self.reason = reason  # why it is not met; empty: it is
        self._changed = changed

    @property
    def met(self) -> bool:
        return not self.reason

    def meet(self) -> None:
        """The condition holds."""
        self._change("")

    def fail(self, reason: str) -> None:
        """The condition does not hold, because of `reason` (for operators, one line)."""
        self._change(reason or "no reason given")

    def _change(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._changed(self)


class Readiness:
    """The conditions of this process."""

    def __init__(self) -> None:
        self._conditions: dict[str, Condition] = {}
        self._change = asyncio.Event()
        self._stopped = False
        self.was_ready = False  # ready when a condition last changed, not counting `stop()`

    def require(self, name: str, *, reason: str = "starting") -> Condition:
        """A new condition, not met for now. A name can be taken once."""
        if name in self._conditions:
            raise ValueError(f"readiness condition {name!r} exists already")
        condition = Condition(name, reason, self._changed)
        self._conditions[name] = condition
        self._changed(condition)
        return condition

    @property
    def ready(self) -> bool:
        return all(condition.met for condition in self._conditions.values())

    def unmet(self) -> dict[str, str]:
        """The reason of every condition that is not met, by name."""
        return {c.name: c.reason for c in self._conditions.values() if not c.met}

    def stop(self, reason: str = "shutting down") -> None:
        """Not ready from now on, whatever the conditions say."""
        if not self._stopped:
            self._stopped = True
            self.require("stop", reason=reason)

    def next_change(self) -> asyncio.Event:
        """An event that the next change of any condition sets; take it before you look."""
        return self._change

    def _changed(self, condition: Condition) -> None:
        # Whoever waits is woken by this change; whoever comes now waits for the next one.
        self._change.set()
        self._change = asyncio.Event()
        if self._stopped or self.ready == self.was_ready:
            return
        self.was_ready = self.ready
        if self.was_ready:
            event(_log, INFO, "ready")
        else:
            event(_log, INFO, "not ready", condition=condition.name, reason=condition.reason)
