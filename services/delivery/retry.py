"""When to try again and when to give up: pure functions of the attempts made and of the time.

RFC 5321 §4.5.4.1: at least 30 minutes between attempts and four to five days until giving up are
the recommendation. Deviation: the defaults are 60 minutes and 24 hours; both are settings.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from services.common.config.delivery import Retry

JITTER: Final = 0.05
"""How far a delay strays from its length to each side. What failed together must not all come due
together: the server loads everything that is due at once."""


def delay(attempts: int, settings: Retry, *, stray: float) -> timedelta:
    """The wait after the attempt with this number (from 1). `stray` is between -1 and 1."""
    seconds = settings.interval.total_seconds()
    if settings.initial is not None:
        # Beyond 64 steps it is the interval anyway, and a float would overflow.
        growth = settings.multiplier ** min(attempts - 1, 64)
        seconds = min(seconds, settings.initial.total_seconds() * growth)
    return timedelta(seconds=seconds * (1 + JITTER * max(-1.0, min(stray, 1.0))))


def is_last(attempts: int, age: timedelta, settings: Retry) -> bool:
    """Whether the attempt with this number (from 1), of a mail this old, was its last."""
    return is_too_old(age, settings) or attempts > settings.max_retries


def is_too_old(age: timedelta, settings: Retry) -> bool:
    """Whether a mail this old is given up at its next failure, retries left or not."""
    return bool(settings.max_age) and age >= settings.max_age


def horizon(settings: Retry, attempts: int = 1) -> timedelta:
    """How long after the attempt with this number a mail is tried, as far as `max_retries` goes.

    Somewhat more than the delays add up to: a mail that had all its attempts ends by their count.
    """
    seconds = 0.0
    for attempt in range(attempts, settings.max_retries + 1):
        wait = delay(attempt, settings, stray=1).total_seconds()
        if wait >= settings.interval.total_seconds():
            # From here on all are the same; there may be thousands.
            seconds += wait * (settings.max_retries - attempt + 1)
            break
        seconds += wait
    return timedelta(seconds=seconds)


def next_time(attempts: int, now: datetime, settings: Retry) -> datetime:
    """When the attempt after this one is due."""
    return now + delay(attempts, settings, stray=random.uniform(-1, 1))  # noqa: S311 - no secret
