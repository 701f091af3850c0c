"""Who waits while delivery is behind: mail that was tried before, so that fresh mail does not.

Records are handed out in the order of the stream. When very many retries come due together (the
server was away for an hour, everything was answered 451), fresh mail stands behind them, and an
attempt costs several times what putting a record back costs. So while records wait for long until
they are handed out, retries have a part of the places only, and those beyond are put back for about
as long as the others take. How long that is shows by how many had their turn just now: a guess that
is too long leaves mail waiting when there is nothing else to do.

Pure; the time is passed in. One per process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage

BUSY: Final = "waits for its turn at the next hop"
"""Why a record is put back whose next hop is at work on others."""

BEHIND_S: Final = 1.0
"""A record that was due for longer than this when it was handed out tells that we are behind."""

PLACES: Final = 50
"""Retries in hand while we are behind. Few, so that most of the time is left for the others."""

MIN_S: Final = 1.0
MAX_S: Final = 900.0
"""How long the turn takes to come is a guess; later than this is too late to find out."""

STORE_S: Final = 1.0
"""How much of the time that a record is in hand may be the queue's own. More is an outage of NATS:
it says nothing of how long the next ones will take, and they are not to wait for as long."""

WINDOW_S: Final = 2.0
"""Attempts are counted for so long to see how many end in a second."""

_SMOOTHING: Final = 0.1
_FIRST_ATTEMPT_S: Final = 0.5
"""What an attempt is taken to last before one has ended."""


def is_fresh(record: QueuedMessage) -> bool:
    """Whether nothing has happened to a record yet, except that it waited for its turn."""
    return not record.attempts and record.wait_reason in ("", BUSY)


class Precedence:
    """The places of retries."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._active = 0
        self._attempt_s = _FIRST_ATTEMPT_S
        self._ended_rate = 0.0
        """In a second. More than the places let through: whoever is not late needs none."""
        self._ended = 0
        """Since `_counted_from`."""
        self._counted_from = 0.0
        self._turns = 0.0
        """How many were put back, less those whose turn has come since `_turns_at`."""
        self._turns_at = 0.0

    def take(self, due_s: float) -> float | None:
        """A place for a retry that has been due for so long; None: go, and `give` afterwards.

        Otherwise for how many seconds it is to be put back.
        """
        now = self._clock()
        if due_s <= BEHIND_S or self._active < PLACES:
            if not self._active:
                self._count_from(now)
            self._active += 1
            return None
        rate = max(PLACES / self._attempt_s, self._ended_rate)
        self._turns = max(0.0, self._turns - (now - self._turns_at) * rate) + 1
        self._turns_at = now
        wait_s = max(self._turns / rate, MIN_S)
        if wait_s <= MAX_S:
            return wait_s
        # Those beyond must not come back all at once.
        return MAX_S / 2 + wait_s % (MAX_S / 2)

    def give(self, held_s: float, *, tried_s: float) -> None:
        """A place was held for so many seconds, of which the next hop took some."""
        self._active -= 1
        seconds = min(held_s, tried_s + STORE_S)
        self._attempt_s += _SMOOTHING * (max(seconds, 0.001) - self._attempt_s)
        self._ended += 1
        now = self._clock()
        counted_s = now - self._counted_from
        if counted_s < WINDOW_S:
            return
        if seconds == held_s or counted_s < 2 * WINDOW_S:  # not for an outage that lay in between
            self._ended_rate = self._ended / counted_s
        self._count_from(now)

    def _count_from(self, now: float) -> None:
        self._ended, self._counted_from = 0, now
