"""When a mail is tried again and when it is given up."""

from datetime import timedelta

import pytest

from services.common.config.delivery import Retry
from services.delivery.retry import JITTER, delay, horizon, is_last

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("settings", "delays"),
    [
        ({}, [HOUR] * 5),
        ({"interval": "30m"}, [30 * MINUTE] * 3),
        (
            {"initial": "5m"},
            [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, HOUR],
        ),
        ({"initial": "1m", "multiplier": 10}, [MINUTE, 10 * MINUTE, HOUR]),
        ({"initial": "5m", "multiplier": 1}, [5 * MINUTE] * 4),
        ({"initial": "2h"}, [HOUR, HOUR]),
    ],
)
def test_the_waits_between_attempts(settings: dict[str, str], delays: list[timedelta]) -> None:
    retry = Retry.model_validate(settings)
    assert [delay(n, retry, stray=0) for n in range(1, len(delays) + 1)] == delays


@pytest.mark.parametrize(("stray", "factor"), [(-1, 1 - JITTER), (1, 1 + JITTER), (99, 1 + JITTER)])
def test_jitter_is_little_and_bounded(stray: float, factor: float) -> None:
    assert delay(1, Retry(), stray=stray) == HOUR * factor


def test_thousands_of_attempts_overflow_nothing() -> None:
    retry = Retry.model_validate({"initial": "1s", "multiplier": 100, "max_retries": 10_000})
    assert delay(10_000, retry, stray=0) == HOUR
    assert horizon(retry) > 9_000 * HOUR


@pytest.mark.parametrize(
    ("attempts", "age", "settings", "last"),
    [
        (1, HOUR, {}, False),
        (24, 23 * HOUR, {}, False),
        (25, 24 * HOUR, {}, True),  # the first attempt and 24 retries
        (1, HOUR, {"max_retries": 0}, True),
        (3, 2 * HOUR, {"max_age": "3h"}, False),
        (3, 3 * HOUR, {"max_age": "3h"}, True),
        (3, 99 * HOUR, {"max_age": "0"}, False),
    ],
)
def test_the_last_attempt(
    attempts: int, age: timedelta, settings: dict[str, object], last: bool
) -> None:
    assert is_last(attempts, age, Retry.model_validate(settings)) is last


def test_by_default_a_mail_is_tried_for_a_day() -> None:
    assert 24 * HOUR <= horizon(Retry()) <= 26 * HOUR
