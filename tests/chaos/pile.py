"""Mail that waits in the queue of a running installation, put there past ingress, in the ledger."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream, NatsSettings
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from tests.chaos.world import DOMAINS, World
from tests.support.booked import booked
from tests.support.waiting import BATCH, have_wait

_FIRST_S = 10.0
_RECORDS_PER_SECOND = 1500
"""As fast as they go in on a slow machine: none is due before the last one waits."""


def pile_up(world: World, count: int) -> datetime:
    """Have so many mails wait; they are due at the time that is returned."""
    return asyncio.run(_pile_up(world, count))


async def _pile_up(world: World, count: int) -> datetime:
    assert world.server is not None
    store = JetStream(NatsSettings(urls=[world.server.url], client_name="chaos"))
    try:
        await store.start(wait_s=10)
        addresses = (f"user{number % 50}@{DOMAINS[number % 3]}" for number in range(count))
        records: list[QueuedMessage] = []
        while some := booked(world.ledger, islice(addresses, BATCH), attempts=1):
            contents = Batcher(store)
            await asyncio.gather(*(move_to_stream(contents, record) for record in some))
            records += some
        due = datetime.now(UTC) + timedelta(seconds=_FIRST_S + count / _RECORDS_PER_SECOND)
        await have_wait(store, records, due)
    finally:
        await store.close()
    return due
