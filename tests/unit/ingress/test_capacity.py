"""Room for contents: bounded, given back, and in turn."""

from __future__ import annotations

import asyncio

import pytest

from services.common.config.smtp import Limits
from services.ingress import capacity as module
from services.ingress.capacity import Capacity

_MIB = 2**20


def _capacity(**limits: int) -> Capacity:
    made = Limits(**limits)  # type: ignore[arg-type]
    return Capacity(lambda: made)


def test_memory_is_shared_and_given_back() -> None:
    capacity = _capacity(content_memory=4 * _MIB)
    first, second = capacity.reserve(), capacity.reserve()
    assert first.hold(3 * _MIB)
    assert not second.hold(2 * _MIB)
    assert second.hold(_MIB)
    assert first.hold(2 * _MIB)
    assert second.hold(2 * _MIB)
    first.release()
    first.release()
    assert second.hold(4 * _MIB)


def test_what_was_refused_is_not_taken() -> None:
    capacity = _capacity(content_memory=4 * _MIB)
    first, second = capacity.reserve(), capacity.reserve()
    assert not first.hold(5 * _MIB)
    assert second.hold(4 * _MIB)


async def test_large_contents_wait_in_line() -> None:
    capacity = _capacity(large_contents=1)
    rooms = [capacity.reserve() for _ in range(3)]
    assert await rooms[0].enter_large()
    assert await rooms[0].enter_large()
    waiting = [asyncio.create_task(room.enter_large()) for room in rooms[1:]]
    await asyncio.sleep(0)
    rooms[0].release()
    assert await waiting[0]
    assert not waiting[1].done()
    rooms[1].release()
    assert await waiting[1]
    rooms[2].release()
    assert await capacity.reserve().enter_large()


async def test_patience_has_an_end_and_leaves_the_line_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capacity = _capacity(large_contents=1)
    holder = capacity.reserve()
    assert await holder.enter_large()
    monkeypatch.setattr(module, "LARGE_PATIENCE_S", 0.01)
    assert not await capacity.reserve().enter_large()
    monkeypatch.undo()
    next_one = capacity.reserve()
    turn = asyncio.create_task(next_one.enter_large())
    await asyncio.sleep(0)
    holder.release()
    assert await turn


async def test_a_place_that_comes_as_somebody_leaves_is_not_lost() -> None:
    capacity = _capacity(large_contents=1)
    holder = capacity.reserve()
    assert await holder.enter_large()
    turn = asyncio.create_task(capacity.reserve().enter_large())
    await asyncio.sleep(0)
    holder.release()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    async with asyncio.timeout(1):
        assert await capacity.reserve().enter_large()
