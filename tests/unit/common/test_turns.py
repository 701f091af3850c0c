"""Turns: who waits, for what, and in which order."""

import asyncio

import pytest

from services.common import turns as module
from services.common.turns import TURNS_IN_ROUND, Turns
from tests.support.clock import FakeClock


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def taking_all(turns: Turns) -> list[asyncio.Task[None]]:
    """Those who take all that there is in this round."""
    return [asyncio.create_task(turns.next()) for _ in range(TURNS_IN_ROUND)]


async def test_with_nothing_to_do_a_turn_is_there() -> None:
    turns = Turns()
    for _ in range(TURNS_IN_ROUND):
        with pytest.raises(StopIteration):
            turns.next().send(None)


async def test_in_a_round_there_are_only_so_many() -> None:
    turns = Turns()
    taken: list[int] = []
    now = 0

    async def work() -> None:
        await turns.next()
        taken.append(now)

    tasks = [asyncio.create_task(work()) for _ in range(10 * TURNS_IN_ROUND)]
    while not all(task.done() for task in tasks):
        now += 1
        await asyncio.sleep(0)
    assert len(taken) == len(tasks)
    assert max(taken.count(each) for each in taken) <= 2 * TURNS_IN_ROUND
    assert now >= 5, "all of it in one round is what turns are against"


async def test_who_has_begun_goes_first() -> None:
    turns = Turns()
    order: list[str] = []

    async def begin() -> None:
        await turns.begin()
        order.append("new")

    async def go_on() -> None:
        await turns.next()
        order.append("begun")

    tasks = taking_all(turns)
    tasks += [asyncio.create_task(begin()) for _ in range(8)]
    tasks += [asyncio.create_task(go_on()) for _ in range(8)]
    await asyncio.gather(*tasks)
    assert order == ["begun"] * 8 + ["new"] * 8


async def test_turns_are_held_back_while_calls_come_and_never_for_long() -> None:
    clock = FakeClock()
    turns = Turns(clock=clock)
    await turns.next()
    turns.called()
    task = asyncio.create_task(turns.next())
    await rounds(20)
    assert not task.done()
    clock.advance(2 * module.MAX_HOLD_S)
    turns.called()
    async with asyncio.timeout(5):
        await task


async def test_turns_go_on_when_calls_do_not() -> None:
    clock = FakeClock()
    turns = Turns(clock=clock)
    await turns.next()
    turns.called()
    task = asyncio.create_task(turns.next())
    await rounds(20)
    assert not task.done()
    clock.advance(2 * module.QUIET_S)
    async with asyncio.timeout(5):
        await task


async def test_who_gave_up_takes_no_turn_from_others() -> None:
    turns = Turns()
    taking_all(turns)
    gone = [asyncio.create_task(turns.next()) for _ in range(100)]
    last = asyncio.create_task(turns.next())
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await rounds(5)
    assert last.done()


def test_another_event_loop_begins_anew() -> None:
    turns = Turns()

    async def leave_work_behind() -> None:
        taking_all(turns)
        task = asyncio.create_task(turns.next())
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()

    async def work() -> None:
        async with asyncio.timeout(5):
            for _ in range(3 * TURNS_IN_ROUND):
                await turns.next()

    asyncio.run(leave_work_behind())
    asyncio.run(work())
