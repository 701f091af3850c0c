"""A breaker for calls to a service that may be away: after a few failures, no more waiting.

Closed: every call is made. After `FAILURES_TO_OPEN` in a row it is open: no call is made and the
caller says at once what it says in that case. After a pause one call is let through to see; its
success closes the breaker, its failure doubles the pause, up to `MAX_PAUSE_S`.

Pure: the time is passed in (seconds of a monotonic clock).
"""

from __future__ import annotations

from typing import Final

FAILURES_TO_OPEN: Final = 3
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 5.0
"""A service that is back is used again within this time; a call in between costs one deadline."""


class Breaker:
    """The state of one service as seen from here."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are being held back."""
        return self._failures >= FAILURES_TO_OPEN

    def allows(self, now: float) -> bool:
        """Whether a call may be made. While open, true once per pause: that call is the probe."""
        if not self.is_open:
            return True
        if now < self._next_probe:
            return False
        self._next_probe = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """A call was answered, whatever the answer."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S

    def failed(self, now: float) -> None:
        """A call was not answered."""
        was_open = self.is_open
        self._failures += 1
        if was_open:
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
        if self.is_open:
            self._next_probe = now + self._pause_s
