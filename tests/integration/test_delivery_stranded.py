"""Records that the server lost sight of, as it does when one of several in hand is purged."""

from datetime import UTC, datetime, timedelta

import pytest

from services.common.jetstream import JetStream, Outgoing
from services.common.queue.subjects import DELIVERY_CONSUMER, QUEUE_STREAM, State
from services.delivery.stranded import rescue
from tests.support.delivery import Delivery, mail, relay, submit, wait_queued
from tests.support.smtp_peer import SmtpPeer

RECIPIENT = "you@dest.test"
TRIES = 50


@pytest.fixture
async def stranded(store: JetStream) -> int:
    """Two records below the floor. Its height. The server needs some tries to get there."""
    for _ in range(TRIES):
        floor = await strand(store)
        if floor:
            return floor
        await store.purge(QUEUE_STREAM, ">")
    pytest.skip("this nats-server does not lose sight of records")


async def strand(store: JetStream) -> int:
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    await submit(store, *(mail(RECIPIENT) for _ in range(3)))
    hands = [delivery async for delivery in consumer.pull(3, wait_s=30)]
    await store.purge(QUEUE_STREAM, hands[2].subject)
    await submit(store, mail(RECIPIENT))
    async for delivery in consumer.pull(1, wait_s=30):
        await delivery.ack()
    await consumer.close()
    state = await store.consumer_state(QUEUE_STREAM, DELIVERY_CONSUMER)
    assert state is not None
    return state.ack_floor if state.ack_floor > hands[1].sequence else 0


async def test_stranded_records_are_delivered(store: JetStream, stranded: int) -> None:
    assert await rescue(store, later(), look_again_s=0) == 2
    due = await store.page(QUEUE_STREAM, "queue.>", after_sequence=0, count=10)
    assert [each.sequence > stranded for each in due] == [True, True]
    # Not as ingress wrote them: they are older than the messages that hold them now.
    records = await wait_queued(store, State.READY, State.READY)
    assert all(record.HasField("due_time") for record in records)
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        await wait_queued(store)
    assert len(peer.mails) == 2


async def test_young_ones_are_left_alone(store: JetStream, stranded: int) -> None:
    assert await rescue(store, datetime.now(UTC), look_again_s=0) == 0
    assert await rescue(store, later(), age=timedelta(hours=2), look_again_s=0) == 0


async def test_records_in_hand_are_left_alone(store: JetStream) -> None:
    await submit(store, mail(RECIPIENT), mail(RECIPIENT))
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    first, second = [delivery async for delivery in consumer.pull(2, wait_s=30)]
    assert await rescue(store, later(), look_again_s=0) == 0
    await first.ack()
    assert await rescue(store, later(), look_again_s=0) == 0
    await second.ack()
    await wait_queued(store)
    await consumer.close()


async def test_a_newer_state_counts(store: JetStream, stranded: int) -> None:
    old, _ = await store.page(QUEUE_STREAM, "queue.ready.>", after_sequence=0, count=10)
    await store.publish(Outgoing(old.subject, old.data))
    assert await rescue(store, later(), look_again_s=0) == 1
    assert await store.at(QUEUE_STREAM, old.sequence) is None
    await wait_queued(store, State.READY, State.READY)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)
