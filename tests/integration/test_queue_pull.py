"""The pull consumer: what is ready arrives at once, and what was not taken comes back at once."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from services.common.jetstream import (
    Consumer,
    Delivery,
    JetStream,
    NatsSettings,
    Outgoing,
    Unavailable,
)
from services.common.queue.subjects import (
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    RecordKey,
    State,
)
from services.common.topology import TopologySettings, ensure
from tests.support.nats_server import NatsServer
from tests.support.soon import soon

WAIT_S = 5.0


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    store = JetStream(NatsSettings(urls=[nats_server.url], client_name="test"))
    await store.start(wait_s=30)
    await ensure(store, TopologySettings())
    await store.purge(QUEUE_STREAM, "queue.>")
    yield store
    await store.close()


async def _publish(store: JetStream, *names: str) -> None:
    for name in names:
        subject = RecordKey("example.test", name).subject(State.READY)
        await store.publish(Outgoing(subject, name.encode()))


async def _take(consumer: Consumer, count: int, *, wait_s: float = WAIT_S) -> list[Delivery]:
    return [delivery async for delivery in consumer.pull(count, wait_s=wait_s)]


@pytest.mark.timed
async def test_a_lone_message_is_not_kept_back_for_others(store: JetStream) -> None:
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)

    async def attempt() -> float:
        pull = consumer.pull(100, wait_s=WAIT_S)
        first = asyncio.ensure_future(anext(pull))
        await asyncio.sleep(0.2)
        published = time.monotonic()
        await _publish(store, "a-1")
        delivery = await first
        took = time.monotonic() - published
        assert (delivery.data, delivery.redelivered) == (b"a-1", False)
        await delivery.ack()
        await pull.aclose()
        return took

    await soon(attempt, seconds=1)
    await consumer.close()


async def test_a_pull_ends_with_its_number_or_its_time(store: JetStream) -> None:
    await _publish(store, "a-1", "a-2", "a-3")
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    taken = await _take(consumer, 2)
    assert [delivery.data for delivery in taken] == [b"a-1", b"a-2"]
    taken += await _take(consumer, 2)
    assert [delivery.data for delivery in taken] == [b"a-1", b"a-2", b"a-3"]
    for delivery in taken:
        await delivery.ack()
    assert await store.page(QUEUE_STREAM, "queue.>", after_sequence=0, count=1) == []
    await consumer.close()


async def test_what_was_not_taken_comes_back_at_once(store: JetStream) -> None:
    await _publish(store, "a-1", "a-2", "a-3")
    left = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    pull = left.pull(3, wait_s=WAIT_S)
    held = await anext(pull)
    await pull.aclose()
    await left.close()
    other = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    taken = await _take(other, 2)
    assert {delivery.data for delivery in taken} == {b"a-2", b"a-3"}
    assert all(delivery.redelivered for delivery in taken)
    for delivery in (held, *taken):
        await delivery.ack()
    await other.close()


async def test_a_server_that_hangs_is_noticed(store: JetStream, nats_server: NatsServer) -> None:
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    pulling = asyncio.ensure_future(_take(consumer, 1, wait_s=60))
    await asyncio.sleep(0.2)
    nats_server.pause()
    try:
        with pytest.raises(Unavailable, match="silent"):
            await pulling
    finally:
        nats_server.resume()


async def test_without_a_connection_nobody_waits() -> None:
    store = JetStream(NatsSettings(urls=["nats://127.0.0.1:1"], client_name="test"))
    with pytest.raises(Unavailable):
        await _take(store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER), 1)
