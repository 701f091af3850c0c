"""What replicas of delivery know together of destinations, whatever else is under way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.common.jetstream import JetStream
from services.common.store import Stored
from services.common.topology import TopologySettings, streams
from services.delivery.destinations import Destinations
from tests.support.delivery import FAR, Delivery

STREAM = "KV_destinations"


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
