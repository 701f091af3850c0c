"""Turns at next hops: who may go, who waits, who is put back until when."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from services.common.config.delivery import Delivery
from services.common.mail.reply import Reply
from services.delivery.slots import EARLY_S, MANY_DEFERRALS, MAX_PARK_S, Parked, Slots

FAILURE = Reply(451, "4.4.1", "refused")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def slots(clock: Clock, **settings: Any) -> Slots:
    concurrency = {"initial": 2, "limit": 3, "total": 10}
    delivery = Delivery.model_validate({"concurrency": concurrency, **settings})
    return Slots(lambda: delivery, clock)


async def waiting(made: Slots, key: str = "a") -> "asyncio.Task[Parked | None]":
    task = asyncio.create_task(made.take(key))
    await asyncio.sleep(0)
    return task


async def test_a_window_is_filled_and_then_others_wait_for_a_turn(clock: Clock) -> None:
    made = slots(clock)
    assert [await made.take("a") for _ in range(2)] == [None, None]
    third = await waiting(made)
    assert not third.done()
    assert await made.take("b") is None
    made.give("a", 0.1, failure=None)
    assert await third is None


async def test_a_next_hop_that_an_operator_wants_tried_is_left_alone_for_longer_if_it_fails(
    clock: Clock,
) -> None:
    made = slots(clock)
    made.try_again("a")  # nothing is known of it
    left_alone: list[float] = []
    made.on_left_alone = lambda _key, seconds, _failure: left_alone.append(seconds)
    for _ in range(2):
        assert await made.take("a") is None
        made.give("a", 0.1, failure=FAILURE)
        assert await made.take("a") is not None
        made.try_again("a")
    assert await made.take("a") is None
    assert left_alone[1] == 2 * left_alone[0]


async def test_the_window_grows_with_success_up_to_the_limit(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(20):
        assert await made.take("a") is None
        made.give("a", 0.1, failure=None)
    assert [await made.take("a") for _ in range(3)] == [None] * 3
    assert not (await waiting(made)).done()


async def test_who_would_wait_for_long_is_parked_in_a_row(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(2):
        await made.take("a")
    made.give("a", 100.0, failure=None)
    await made.take("a")
    parked = [await made.take("a") for _ in range(20)]
    seconds = [each.seconds for each in parked if each is not None]
    assert len(seconds) == 20
    assert seconds == sorted(seconds)
    assert 30 < seconds[0] < 60
    assert seconds[-1] == MAX_PARK_S
    # Half an hour later those have had their turn.
    clock.now += 1800
    again = await made.take("a")
    assert again is not None
    assert again.seconds < 60


async def test_half_of_the_room_is_left_to_others(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(2):
        await made.take("a")
    tasks = [await waiting(made) for _ in range(8)]
    assert [task.done() for task in tasks] == [False] * 5 + [True] * 3
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    ("backoff", "first", "last"),
    [({}, 5, 300), ({"initial": "30s", "limit": "1h"}, 30, 3600)],
    ids=["default", "patient"],
)
async def test_a_next_hop_that_fails_is_left_alone_for_longer_and_longer(
    clock: Clock, backoff: dict[str, str], first: int, last: int
) -> None:
    made = slots(clock, backoff=backoff)
    waits = []
    for _ in range(12):
        assert await made.take("a") is None
        made.give("a", 0.1, failure=FAILURE)
        parked = await made.take("a")
        assert parked is not None
        assert parked.failure == FAILURE
        waits.append(parked.seconds)
        clock.now += last + 1
    assert waits == sorted(waits)
    assert first <= waits[0] < first + 5
    assert waits[-1] == last


async def test_what_another_replica_says_is_believed_up_to_the_limit(clock: Clock) -> None:
    made = slots(clock, backoff={"limit": "1m"})
    made.leave_alone("a", 1e9, FAILURE)
    assert await made.take("a") == Parked(pytest.approx(60, abs=1), FAILURE)
    clock.now += 61
    assert await made.take("a") is None


@pytest.mark.parametrize(("later", "known"), [(30, True), (3600, False)])
async def test_a_failure_of_long_ago_is_not_held_against_mail_that_waits_for_its_turn(
    clock: Clock, later: float, known: bool
) -> None:
    """It may be given up over what the next hop fails with; the session that runs may succeed."""
    made = slots(clock)
    assert await made.take("a") is None
    made.give("a", 0.1, failure=FAILURE)
    clock.now += later
    assert await made.take("a") is None
    clock.now += 2  # so long that nobody waits in hand
    parked = await made.take("a")
    assert parked is not None
    assert parked.failure == (FAILURE if known else None)


async def test_mails_begin_evenly_spread_where_a_rate_is_set(clock: Clock) -> None:
    made = slots(clock, rate={"messages": 6, "period": "1m", "exceptions": {"b.test": 60}})
    begun: list[float] = []
    due = [0.0] * 10
    started = clock.now
    while due:
        clock.now = max(clock.now, started + due.pop(0))
        parked = await made.take("a.test")
        if parked is None:
            begun.append(clock.now - started)
            made.give("a.test", 0.01, failure=None)
        else:
            due = sorted([*due, clock.now - started + parked.seconds])
    apart = [later - earlier for earlier, later in pairwise(begun)]
    assert min(apart) >= 10 - EARLY_S
    assert begun[-1] < 10 * 10 + 60
    assert [await made.take("b.test") for _ in range(2)] == [None, None]


async def test_those_who_wait_are_sent_away_when_the_next_hop_fails(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(2):
        await made.take("a")
    third = await waiting(made)
    made.give("a", 0.1, failure=FAILURE)
    parked = await third
    assert parked is not None
    assert parked.failure == FAILURE


async def test_success_ends_the_waiting(clock: Clock) -> None:
    made = slots(clock)
    await made.take("a")
    made.give("a", 0.1, failure=FAILURE)
    clock.now += 10
    assert await made.take("a") is None
    made.give("a", 0.1, failure=None)
    assert await made.take("a") is None


async def test_who_is_cancelled_takes_no_turn_along(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(2):
        await made.take("a")
    first, second = await waiting(made), await waiting(made)
    made.give("a", 0.1, failure=None)
    first.cancel()
    await asyncio.wait({first})
    assert await second is None


async def test_nobody_waits_for_a_next_hop_that_has_not_moved_for_long(clock: Clock) -> None:
    made = slots(clock)
    for _ in range(2):
        await made.take("a")
    clock.now += 5
    parked = await made.take("a")
    assert parked is not None
    assert parked.failure is None
    # It may end in a moment: two at a time, a second each, is what those behind have to expect.
    assert [await made.take("a") for _ in range(20)][-1] == Parked(pytest.approx(21 / 2))


async def test_a_next_hop_that_defers_everything_is_known(clock: Clock) -> None:
    made = slots(clock)
    for number in range(20):
        assert made.defers_all("a") is (number >= MANY_DEFERRALS)
        await made.take("a")
        made.give("a", 0.1, failure=None, deferred=True)
    await made.take("a")
    made.give("a", 0.1, failure=None)
    assert not made.defers_all("a")
