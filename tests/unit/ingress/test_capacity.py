"""Room for contents: bounded, given back, and in turn."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from services.common.config.smtp import Limits
from services.ingress import capacity as module
from services.ingress.capacity import Capacity

_MIB = 2**20
_CLIENT = ip_address("192.0.2.1")


def _capacity(**limits: int) -> Capacity:
    made = Limits(**limits)  # type: ignore[arg-type]
    return Capacity(lambda: made)


def test_memory_is_shared_and_given_back() -> None:
    capacity = _capacity(content_memory=4 * _MIB)
    first, second = capacity.reserve(_CLIENT), capacity.reserve(_CLIENT)
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
    first, second = capacity.reserve(_CLIENT), capacity.reserve(_CLIENT)
    assert not first.hold(5 * _MIB)
    assert second.hold(4 * _MIB)


async def test_large_contents_wait_in_line() -> None:
    capacity = _capacity(large_contents=1)
    rooms = [capacity.reserve(_CLIENT) for _ in range(3)]
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
    assert await capacity.reserve(_CLIENT).enter_large()


async def test_patience_has_an_end_and_leaves_the_line_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capacity = _capacity(large_contents=1)
    holder = capacity.reserve(_CLIENT)
    assert await holder.enter_large()
    monkeypatch.setattr(module, "LARGE_PATIENCE_S", 0.01)
    assert not await capacity.reserve(_CLIENT).enter_large()
    monkeypatch.undo()
    next_one = capacity.reserve(_CLIENT)
    turn = asyncio.create_task(next_one.enter_large())
    await asyncio.sleep(0)
    holder.release()
    assert await turn


async def test_a_place_that_comes_as_somebody_leaves_is_not_lost() -> None:
    capacity = _capacity(large_contents=1)
    holder = capacity.reserve(_CLIENT)
    assert await holder.enter_large()
    turn = asyncio.create_task(capacity.reserve(_CLIENT).enter_large())
    await asyncio.sleep(0)
    holder.release()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    async with asyncio.timeout(1):
        assert await capacity.reserve(_CLIENT).enter_large()


@pytest.mark.parametrize(
    ("large_contents", "share", "one", "same", "other"),
    [
        (8, 2, "192.0.2.1", "192.0.2.1", "192.0.2.2"),
        (11, 2, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
        (2, 1, "192.0.2.1", "192.0.2.1", "2001:db8::1"),
    ],
)
async def test_one_address_has_a_quarter_of_the_large_places_and_keeps_nobody_waiting(
    large_contents: int, share: int, one: str, same: str, other: str
) -> None:
    capacity = _capacity(large_contents=large_contents)
    rooms = [capacity.reserve(ip_address(one)) for _ in range(share)]
    for room in rooms:
        assert await room.enter_large()
    waiting = asyncio.create_task(capacity.reserve(ip_address(same)).enter_large())
    await asyncio.sleep(0)
    # Who waits for a place of his own share stands in nobody's way.
    async with asyncio.timeout(5):
        assert await capacity.reserve(ip_address(other)).enter_large()
    assert not waiting.done()
    rooms[0].release()
    async with asyncio.timeout(5):
        assert await waiting


async def test_who_is_exempt_may_have_all_large_places() -> None:
    capacity = _capacity(large_contents=8)
    async with asyncio.timeout(5):
        for _ in range(8):
            assert await capacity.reserve(ip_address("10.0.0.1")).enter_large()
