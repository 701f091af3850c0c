"""What replicas of delivery know together of destinations, whatever else is under way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.mail.reply import Reply
from services.common.store import Stored
from services.common.topology import TopologySettings, streams
from services.delivery.destinations import NOTICED_S, Destinations
from tests.support.delivery import FAR, Delivery, mail, put_to_wait
from tests.support.eventually import eventually

STREAM = "KV_destinations"
HOP = "smtp:127.0.0.1:1"
FAILURE = Reply(451, "4.4.1", "refused")
BACKOFF = {"delivery": {"backoff": {"initial": "5m"}}}


@asynccontextmanager
async def late_reading(
    store: JetStream, shared: Destinations, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """What is done here is done between the beginning and the end of a reading."""
    page, begun, go_on = store.page, asyncio.Event(), asyncio.Event()

    async def late(*arguments: Any, **named: Any) -> list[Stored]:
        found = await page(*arguments, **named)
        begun.set()
        await go_on.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "page", late)
        reading = asyncio.create_task(shared.refresh())
        await begun.wait()
    yield
    go_on.set()
    await reading


async def test_a_suspension_that_is_renewed_while_its_end_is_read_stays(
    store: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    later = Delivery(store, {}, clock=lambda: now + timedelta(hours=2)).destinations
    await later.suspend(FAR, now + timedelta(hours=1))
    page = store.page

    async def renewed_meanwhile(*arguments: Any, **named: Any) -> list[Stored]:
        found = await page(*arguments, **named)
        await Delivery(store, {}).destinations.suspend(FAR, None)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "page", renewed_meanwhile)
        await later.refresh()
    assert list(await later.suspensions()) == [FAR]


async def test_what_is_out_of_date_is_removed(store: JetStream) -> None:
    now = datetime.now(UTC)
    later = Delivery(store, {}, clock=lambda: now + timedelta(hours=2)).destinations
    await later.suspend(FAR, now + timedelta(hours=1))
    await later.suspend("quiet.test", None)
    await later.refresh()
    left = await store.page(STREAM, "$KV.destinations.>", after_sequence=0, count=10)
    assert [json.loads(each.data) for each in left] == [{"until": None}]


async def test_a_reading_that_ends_late_does_not_undo_a_suspension(
    store: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Delivery(store, {}).destinations
    await shared.suspend("other.test", None)
    async with late_reading(store, shared, monkeypatch):
        await shared.suspend(FAR, None)
        await shared.refresh()
    assert shared.suspension(FAR) is not None


async def test_a_bucket_that_was_made_anew_is_read(store: JetStream) -> None:
    """Its sequences begin at 1 again."""
    shared = Delivery(store, {}).destinations
    for name in (FAR, "other.test", FAR):
        await shared.suspend(name, None)
    await shared.refresh()
    await shared.suspend("unread.test", None)
    await store.ask(f"$JS.API.STREAM.DELETE.{STREAM}", {})
    await store.create_stream(streams(TopologySettings())[STREAM])
    await Delivery(store, {}).destinations.suspend("new.test", None)
    assert list(await shared.suspensions()) == ["new.test"]


def due(stored: Stored) -> datetime:
    return QueuedMessage.FromString(stored.data).due_time.ToDatetime(tzinfo=UTC)


async def fail(store: JetStream, delivery: Delivery) -> None:
    """Have a replica find that the next hop fails, and tell the others."""
    assert await delivery.slots.take(HOP) is None
    delivery.slots.give(HOP, 0.1, failure=FAILURE)
    subject = f"$KV.destinations.failing.{HOP.encode().hex()}"

    async def is_stored() -> bool:
        stored = await store.last(STREAM, subject)
        return stored is not None and bool(stored.data)

    await eventually(is_stored, seconds=30)


async def is_left_alone(delivery: Delivery) -> bool:
    if await delivery.slots.take(HOP) is not None:
        return True
    delivery.slots.give(HOP, 0.1, failure=None)
    return False


async def test_all_replicas_try_a_next_hop_again_when_one_was_told_to(store: JetStream) -> None:
    asked, learned, failed = replicas = [Delivery(store, BACKOFF) for _ in range(3)]
    await fail(store, failed)
    for each in replicas:
        await each.destinations.refresh()
    assert [await is_left_alone(each) for each in replicas] == [True] * 3
    await asked.destinations.forget_failing(HOP)
    assert not await is_left_alone(asked)
    for each in replicas:
        await each.destinations.refresh()
    assert [await is_left_alone(each) for each in replicas] == [False] * 3
    # What is found from here on counts again, even where nobody can be told.
    learned.slots.leave_alone(HOP, 300, FAILURE)
    await learned.destinations.refresh()
    assert await is_left_alone(learned)
    await fail(store, failed)
    for each in replicas:
        await each.destinations.refresh()
        await each.destinations.refresh()
    assert [await is_left_alone(each) for each in replicas] == [True] * 3


@pytest.mark.parametrize("asked_before", [False, True], ids=["alone", "after another replica"])
async def test_what_was_read_before_does_not_bring_back_that_a_next_hop_fails(
    store: JetStream, monkeypatch: pytest.MonkeyPatch, asked_before: bool
) -> None:
    delivery = Delivery(store, BACKOFF)
    await fail(store, delivery)
    async with late_reading(store, delivery.destinations, monkeypatch):
        if asked_before:
            await Delivery(store, {}).destinations.forget_failing(HOP)
        await delivery.destinations.forget_failing(HOP)
    assert not await is_left_alone(delivery)
    await delivery.destinations.refresh()
    assert not await is_left_alone(delivery)


async def test_a_retry_waits_until_every_replica_has_heard_of_it(store: JetStream) -> None:
    now = datetime.now(UTC)
    delivery = Delivery(store, {"domains": {"relay": {FAR: HOP}}}, clock=lambda: now)
    await fail(store, delivery)
    records = [mail(f"you@{FAR}") for _ in range(2)]
    await put_to_wait(store, *records)
    waiting = await store.page("QUEUE", "queue.deferred.>", after_sequence=0, count=10)
    first, second = [due(await delivery.operations.retry(each)) for each in waiting]
    assert first == now + timedelta(seconds=NOTICED_S)
    assert second >= first


async def test_a_retry_is_due_at_once_where_nothing_is_held_against_the_next_hop(
    store: JetStream,
) -> None:
    now = datetime.now(UTC)
    delivery = Delivery(store, {"domains": {"relay": {FAR: HOP}}}, clock=lambda: now)
    await put_to_wait(store, mail(f"you@{FAR}"))
    (waiting,) = await store.page("QUEUE", "queue.deferred.>", after_sequence=0, count=10)
    assert due(await delivery.operations.retry(waiting)) < now
