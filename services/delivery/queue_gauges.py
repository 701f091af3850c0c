"""How much mail is where, for metrics and autoscaling: cheap, however much it is."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Gauge

from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, event
from services.common.queue.subjects import (
    DEAD_STREAM,
    DEFERRED_COUNTER,
    DELIVERY_CONSUMER,
    HELD_COUNTER,
    QUEUE_STREAM,
    State,
    record_filter,
)

SAMPLE_S: Final = 5.0

RECORDS = Gauge(
    "gatepost_delivery_queue_records",
    "Records in the queue, by state. `ready` is what is due or being tried.",
    ["state"],  # ready, deferred, held
)
BACKLOG = Gauge(
    "gatepost_delivery_ready_backlog_records",
    "Records that are due and in nobody's hands: what another replica could take up.",
)
OLDEST_READY = Gauge(
    "gatepost_delivery_oldest_ready_seconds",
    "How long the oldest record that is due has been so; 0: none is.",
)
DEAD = Gauge("gatepost_delivery_dead_records", "Records that are set aside in the stream DEAD.")

_log = logging.getLogger(__name__)


async def follow(store: JetStream) -> None:
    """Keep the gauges up to date for ever."""
    while True:
        try:
            await sample(store)
        except StoreError as error:
            event(_log, INFO, "the queue was not measured", reason=str(error))
        await asyncio.sleep(SAMPLE_S)


async def sample(store: JetStream) -> None:
    """Set the gauges. Raises `StoreError`."""
    ready = await store.consumer_state(QUEUE_STREAM, DELIVERY_CONSUMER)
    if ready is not None:
        RECORDS.labels(State.READY).set(ready.pending + ready.ack_pending)
        BACKLOG.set(ready.pending)
    for state, counter in ((State.DEFERRED, DEFERRED_COUNTER), (State.HELD, HELD_COUNTER)):
        counted = await store.consumer_state(QUEUE_STREAM, counter)
        if counted is not None:
            RECORDS.labels(state).set(counted.pending)
    first = await store.page(
        QUEUE_STREAM, record_filter(state=State.READY), after_sequence=0, count=1
    )
    waited = (datetime.now(UTC) - first[0].time).total_seconds() if first else 0.0
    OLDEST_READY.set(max(waited, 0.0))
    dead = await store.stream_state(DEAD_STREAM)
    if dead is not None:
        DEAD.set(dead.messages)
