"""How often something may happen, per client: token buckets in a table of bounded size (pure).

A client that was quiet for a minute may do as much at once as it may do in a minute. The time is
passed in, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

MAX_CLIENTS: Final = 50_000
"""About 10 MB. When there are more, those that were quiet are forgotten, which changes nothing."""

_MINUTE_S: Final = 60.0


class Rates:
    """What each client has left."""

    def __init__(self) -> None:
        self._left: dict[Hashable, tuple[float, float]] = {}

    def allows(self, client: Hashable, *, per_minute: int, now: float) -> bool:
        """Whether it may happen once more; if so, it is counted."""
        left, since = self._left.get(client, (float(per_minute), now))
        left = min(float(per_minute), left + (now - since) * per_minute / _MINUTE_S)
        allowed = left >= 1
        if len(self._left) >= MAX_CLIENTS and client not in self._left:
            self._forget_quiet(now)
        self._left[client] = (left - 1 if allowed else left, now)
        return allowed

    def _forget_quiet(self, now: float) -> None:
        self._left = {
            client: entry for client, entry in self._left.items() if now - entry[1] < _MINUTE_S
        }
        if len(self._left) >= MAX_CLIENTS:
            # A flood from so many addresses is not stopped by looking at each of them.
            self._left.clear()
