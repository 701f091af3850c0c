"""Retries make way while delivery is behind, and have their turn in the end."""

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.delivery.precedence import (
    BEHIND_S,
    BUSY,
    MAX_S,
    MIN_S,
    PLACES,
    STORE_S,
    Precedence,
    is_fresh,
)
from services.delivery.worker import BEHIND, SUSPENDED
from tests.support.clock import FakeClock as Clock

LATE = BEHIND_S + 1


def precedence() -> tuple[Precedence, Clock]:
    clock = Clock()
    return Precedence(clock), clock


def last_wait(made: Precedence) -> float:
    """How long the last of 500 has to wait that are late together and find no place."""
    for _ in range(PLACES):
        made.take(LATE)
    return [made.take(LATE) or 0 for _ in range(500)][-1]


@pytest.mark.parametrize(
    ("attempts", "wait_reason", "fresh"),
    [
        (0, "", True),
        (0, BUSY, True),
        (0, BEHIND, False),
        (0, SUSPENDED, False),
        (1, "451 4.3.0 not now", False),
        (1, BUSY, False),
    ],
)
def test_what_waited_for_its_turn_alone_is_as_fresh_as_before(
    attempts: int, wait_reason: str, fresh: bool
) -> None:
    record = QueuedMessage(attempts=attempts, wait_reason=wait_reason)
    record.due_time.GetCurrentTime()
    assert is_fresh(record) is fresh


def test_who_is_not_late_goes_at_once() -> None:
    made, _ = precedence()
    assert [made.take(BEHIND_S / 2) for _ in range(10 * PLACES)] == [None] * 10 * PLACES


def test_late_ones_have_some_places_and_the_others_come_back_in_a_row() -> None:
    made, _ = precedence()
    assert [made.take(LATE) for _ in range(PLACES)] == [None] * PLACES
    waits = [made.take(LATE) for _ in range(1000)]
    seconds = [wait for wait in waits if wait is not None]
    assert len(seconds) == len(waits)
    assert seconds == sorted(seconds)
    assert MIN_S <= seconds[0] < seconds[-1] <= MAX_S


def test_a_place_that_is_given_back_is_another_ones() -> None:
    made, _ = precedence()
    for _ in range(PLACES):
        made.take(LATE)
    made.give(0.1, tried_s=0.1)
    assert made.take(LATE) is None
    assert made.take(LATE) is not None


def test_slow_attempts_make_the_others_wait_for_longer() -> None:
    waits = []
    for attempt_s in (0.01, 60.0):
        made, _ = precedence()
        for _ in range(100):
            made.take(0)
            made.give(attempt_s, tried_s=attempt_s)
        waits.append(last_wait(made))
    assert waits[0] < waits[1] <= MAX_S


def test_an_outage_of_the_queue_does_not_make_them_wait_for_longer() -> None:
    waits = []
    for held_s in (STORE_S, 20.0):
        made, _ = precedence()
        for _ in range(PLACES):
            made.take(0)
            made.give(held_s, tried_s=0.01)
        waits.append(last_wait(made))
    assert waits[0] == pytest.approx(waits[1], rel=0.05)


def busy(made: Precedence, clock: Clock) -> None:
    """400 that are not late are at work at a time, for half a second each."""
    for _ in range(400):
        made.take(0)
    for _ in range(4000):
        clock.advance(1 / 800)
        made.give(0.5, tried_s=0.05)
        made.take(0)


def test_the_others_wait_for_as_long_as_it_takes_by_how_many_have_their_turn() -> None:
    made, clock = precedence()
    busy(made, clock)
    waits = [made.take(LATE) or 0 for _ in range(4000)]
    assert waits[-1] == pytest.approx(4000 / 800, rel=0.05)


def test_after_an_outage_of_the_queue_they_wait_for_no_longer_than_before() -> None:
    made, clock = precedence()
    busy(made, clock)
    clock.advance(20.0)
    for _ in range(400):
        made.give(20.0, tried_s=0.05)
        made.take(0)
    waits = [made.take(LATE) or 0 for _ in range(4000)]
    assert waits[-1] == pytest.approx(4000 / 800, rel=0.05)


def test_those_who_were_put_back_have_had_their_turn_later() -> None:
    made, clock = precedence()
    for _ in range(PLACES):
        made.take(LATE)
    before = [made.take(LATE) or 0 for _ in range(1000)][-1]
    clock.now += 2 * MAX_S
    assert (made.take(LATE) or 0) < before


def test_those_whose_turn_is_far_away_do_not_come_back_together() -> None:
    made, _ = precedence()
    for _ in range(PLACES):
        made.take(LATE)
    waits = [made.take(LATE) or 0 for _ in range(200_000)]
    assert max(waits) <= MAX_S
    late = sorted(waits[150_000:])
    assert late[0] >= MAX_S / 2
    assert late[25_000] - late[0] > MAX_S / 8
