"""Finds records that are due and that the consumer will never hand out, and makes them due anew.

The consumer hands out what lies above its floor. A record below it counts as acknowledged, and is
removed from the stream for that; where one is still there, the server has lost sight of it:
nats-server 2.15.1 moves the floor past records in hand when a message among them is purged, and its
state may be older than the stream after a crash.

Guarantees: a record is touched only if it is older than any that is being acknowledged and is still
there a while after it was first seen. It is published again before the old one is removed, and
only if it has not moved.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter

from services.common.jetstream import Conflict, JetStream
from services.common.log import WARNING, event
from services.common.queue.record import read_record, ready
from services.common.queue.subjects import (
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    State,
    parse_record_subject,
    record_filter,
)
from services.common.store import Outgoing, Stored

PAGE: Final = 100
AGE: Final = timedelta(minutes=2)
LOOK_AGAIN_S: Final = 5.0
"""What is being acknowledged is gone by then."""

STRANDED = Counter(
    "gatepost_delivery_stranded_records_total",
    "Records that were due and lost sight of by the server, made due by hand.",
)

_log = logging.getLogger(__name__)


async def rescue(
    store: JetStream,
    now: datetime,
    *,
    age: timedelta = AGE,
    look_again_s: float = LOOK_AGAIN_S,
) -> int:
    """Make stranded records due again; how many there were. Raises `StoreError`.

    `now` by the server's clock.
    """
    consumer = await store.consumer_state(QUEUE_STREAM, DELIVERY_CONSUMER)
    if consumer is None:
        return 0
    count, after = 0, 0
    while page := await _page(store, after=after, floor=consumer.ack_floor):
        after = page[-1].sequence
        old = [stored for stored in page if now - stored.time > age]
        if old:
            await asyncio.sleep(look_again_s)
        for stored in old:
            count += await _made_due(store, stored, now)
    return count


async def _page(store: JetStream, *, after: int, floor: int) -> list[Stored]:
    if after >= floor:
        return []
    due = record_filter(state=State.READY)
    page = await store.page(QUEUE_STREAM, due, after_sequence=after, count=PAGE)
    return [stored for stored in page if stored.sequence <= floor]


async def _made_due(store: JetStream, stored: Stored, now: datetime) -> bool:
    if await store.at(QUEUE_STREAM, stored.sequence) is None:
        return False
    try:
        await store.publish(_anew(stored, now), expected_last_sequence=stored.sequence)
    except Conflict:
        # A newer state is due, and it counts.
        await store.delete(QUEUE_STREAM, stored.sequence)
        return False
    await store.delete(QUEUE_STREAM, stored.sequence)
    STRANDED.inc()
    event(_log, WARNING, "stranded record made due", subject=stored.subject)
    return True


def _anew(stored: Stored, now: datetime) -> Outgoing:
    """The record with a due time: it is younger in the queue than its mail is."""
    try:
        _, key = parse_record_subject(stored.subject)
        record = read_record(stored.data, key)
    except ValueError:
        return Outgoing(stored.subject, stored.data)  # it is set aside when it is handed out
    if not record.HasField("due_time"):
        record.due_time.FromDatetime(now)
    return ready(record)
