"""How verdicts get to EVENTS: all of them, each once, and none held up by one that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from gatepost.queue.v1 import event_pb2
from services.common.jetstream import JetStream
from services.common.store import Outgoing, Unavailable
from services.policy.events import MAX_TOGETHER, MAX_WAITING, Events

LOST = "lost-1"


class Store:
    """Takes what is published, but for one mail's verdict."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.at_once = 0
        self._under_way = 0

    async def publish(self, message: Outgoing) -> int:
        """As `JetStream.publish`."""
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        if LOST in message.subject:
            raise Unavailable("away")
        self.published.append(message)
        return len(self.published)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def events(store: Store) -> AsyncIterator[Events]:
    events = Events(cast(JetStream, store))
    work = asyncio.create_task(events.publish())
    yield events
    work.cancel()
    await asyncio.wait({work})


def counted(result: str) -> float:
    labels = {"result": result}
    return REGISTRY.get_sample_value("gatepost_policy_events_total", labels) or 0.0


def tell(events: Events, *names: str) -> None:
    for name in names:
        events.tell(event_pb2.Event(message_id=name))


async def drained(events: Events) -> None:
    async with asyncio.timeout(30):
        await events.drain()


async def test_what_comes_together_leaves_together(store: Store, events: Events) -> None:
    names = [f"mail-{number}" for number in range(2 * MAX_TOGETHER + 1)]
    tell(events, *names)
    await drained(events)
    assert [each.subject for each in store.published] == [f"events.{n}.verdict" for n in names]
    assert store.at_once == MAX_TOGETHER
    told = [event_pb2.Event.FromString(each.data) for each in store.published]
    assert [each.message_id for each in told] == names
    assert all(each.HasField("event_time") for each in told)


async def test_one_that_is_lost_costs_no_other(
    store: Store, events: Events, expected_log: Callable[[str], None]
) -> None:
    expected_log("verdicts cannot be recorded")
    before = counted("published"), counted("failed")
    tell(events, "first-1", LOST, "second-1")
    await drained(events)
    tell(events, "third-1")
    await drained(events)
    assert len(store.published) == 3
    assert (counted("published"), counted("failed")) == (before[0] + 3, before[1] + 1)


async def test_what_finds_no_room_is_counted(store: Store) -> None:
    events, before = Events(cast(Any, store)), counted("dropped")
    tell(events, *(f"mail-{number}" for number in range(MAX_WAITING + 2)))
    assert counted("dropped") == before + 2
