"""What slipped through is found, and nothing else is touched."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from services.common.jetstream import JetStream, Outgoing
from services.common.queue.record import deferred
from services.common.queue.subjects import State
from services.delivery.sweeper import OVERDUE, Sweeper
from tests.support.delivery import (
    FAR,
    Delivery,
    contents,
    local_and_far,
    mail,
    put_to_wait,
    submit,
    wait_queued,
)
from tests.support.smtp_peer import SmtpPeer


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def delivery(store: JetStream, peer: SmtpPeer, tmp_path: Path) -> Delivery:
    return Delivery(store, local_and_far(peer, tmp_path))


async def test_a_record_whose_schedule_never_fired_is_found(
    store: JetStream, delivery: Delivery, peer: SmtpPeer
) -> None:
    late, fresh = mail(f"late@{FAR}"), mail(f"fresh@{FAR}")
    await put_to_wait(store, late, fresh)
    # As a lost schedule looks: the record says an hour ago, the server knows of no time.
    (stored,) = await store.page(
        "QUEUE", f"queue.deferred.*.{late.message_id}", after_sequence=0, count=1
    )
    message = deferred(late, datetime.now(UTC) - 2 * OVERDUE)
    headers = {**message.headers, "Nats-Schedule": "@at 2099-01-01T00:00:00Z"}
    await store.publish(
        Outgoing(message.subject, message.data, headers), expected_last_sequence=stored.sequence
    )
    sweeper = Sweeper(store, delivery.suppressions, owner="a", pause_s=0)
    assert await sweeper.take_lease()
    assert await sweeper.sweep_overdue() == 1
    async with delivery:
        taken = await peer.wait_mails(1)
        assert taken[0].rcpt_to == [f"late@{FAR}"]
        await wait_queued(store, State.DEFERRED)
    waiting = 'gatepost_delivery_waiting_by_destination_records{destination="far.test"} 2.0'
    assert waiting in generate_latest().decode().splitlines()


async def test_only_contents_that_nobody_needs_are_removed(
    store: JetStream, delivery: Delivery
) -> None:
    needed = mail(f"you@{FAR}")
    await put_to_wait(store, needed)
    for subject in ("content.gone-1.1", "content.gone-1.2", "content.half-1.2"):
        await store.publish(Outgoing(subject, b"octets"))
    await store.publish(Outgoing("content.due-1.1", b"octets"))
    due = mail(f"you@{FAR}", message_id="due-1")
    await submit(store, due)
    sweeper = Sweeper(store, delivery.suppressions, owner="a", pause_s=0)
    assert await sweeper.take_lease()
    assert await sweeper.sweep_contents() == 0  # all of them are young
    assert await sweeper.sweep_contents(age=timedelta(0)) == 2
    assert sorted(await contents(store)) == sorted(
        ["content.due-1.1", f"content.{needed.content_reference.content_id}.1"]
    )


async def test_one_replica_sweeps(store: JetStream, delivery: Delivery) -> None:
    first, second = (Sweeper(store, delivery.suppressions, owner=name, pause_s=0) for name in "ab")
    assert await first.take_lease()
    assert not await second.take_lease()
    assert await first.take_lease()
