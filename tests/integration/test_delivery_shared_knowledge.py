"""What replicas of delivery know together of destinations, whatever else is under way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.common.jetstream import JetStream
from services.common.store import Stored
from tests.support.delivery import FAR, Delivery

STREAM = "KV_destinations"


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
