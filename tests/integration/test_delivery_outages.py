"""What comes due while NATS is away, and what a clock that jumps does to mail that waits."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.queue.record import deferred, key_of
from services.common.queue.subjects import CONTENT_STREAM, QUEUE_STREAM, State
from services.common.store import Stored
from services.delivery import server_clock
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from services.delivery.server_clock import ServerClock
from tests.support.booked import booked, collect, submit_all
from tests.support.delivery import (
    FAR,
    Delivery,
    connected_store,
    contents,
    local_and_far,
    mail,
    until,
    wait_queued,
)
from tests.support.ledger import Ledger
from tests.support.nats_server import NatsServer
from tests.support.smtp_peer import SmtpPeer

HOUR = timedelta(hours=1)
DELAY_S = 1.0
INTERVAL = timedelta(minutes=10)


async def retry_now(delivery: Delivery, record: QueuedMessage) -> None:
    """What `gatepost queue retry` does."""
    subject = key_of(record).subject(State.DEFERRED)
    stored = await delivery.store.last(QUEUE_STREAM, subject)
    assert stored is not None
    await delivery.operations.retry(stored)


@pytest.mark.slow
async def test_what_came_due_while_the_server_was_away_is_delivered_once(tmp_path: Path) -> None:
    ledger = Ledger()
    nats = NatsServer(tmp_path / "nats")
    nats.start()
    try:
        store = await connected_store(nats.url)
        due = datetime.now(UTC) + timedelta(seconds=4)
        waiting = booked(ledger, [f"you@{FAR}"] * 400)
        await asyncio.gather(*(move_to_stream(Batcher(store), each) for each in waiting))
        await store.publish_batch([deferred(each, due) for each in waiting])
        nats.kill()
        # The point of it: nobody can fire them at their time.
        await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 1)
        nats.start()
        await until(lambda: store.connected, seconds=30)
        async with SmtpPeer() as peer, Delivery(store, local_and_far(peer, tmp_path)):
            await submit_all(store, booked(ledger, [f"you@{FAR}"] * 10))
            await wait_queued(store, seconds=60)
            collect(ledger, peer.mails)
        assert ledger.problems(duplicates_allowed=0) == []
        assert await contents(store) == []
        await store.close()
    finally:
        nats.close()


async def test_a_next_hop_is_not_slow_for_what_the_queue_takes(
    store: JetStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that waits for its turn there would be put back for minutes."""
    last, left = store.last, list[float]()

    async def slow_last(stream: str, subject: str) -> Stored | None:
        if stream == CONTENT_STREAM:
            await asyncio.sleep(DELAY_S)
        return await last(stream, subject)

    async with SmtpPeer() as peer, Delivery(store, local_and_far(peer, tmp_path)) as delivery:
        give, began = delivery.slots.give, time.monotonic()

        def noted(key: str, seconds: float, **outcome: Any) -> None:
            left.append(time.monotonic() - began - seconds)
            give(key, seconds, **outcome)

        monkeypatch.setattr(delivery.slots, "give", noted)
        monkeypatch.setattr(store, "last", slow_last)
        record = mail(f"you@{FAR}")
        await move_to_stream(Batcher(store), record)
        await submit_all(store, [record])
        await wait_queued(store, seconds=30)
    assert left[0] >= DELAY_S


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
async def test_a_clock_that_jumps_ends_no_mail_and_brings_no_retry_forward(
    store: JetStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: timedelta
) -> None:
    """The first attempt comes before the jump, the second, which an operator asks for, after it."""
    clock = ServerClock()
    clock.tell(await store.server_time(QUEUE_STREAM), asked_at=time.monotonic())
    ledger = Ledger()
    async with SmtpPeer(rcpt="451 4.3.0 not now") as peer:
        retry = {"interval": f"{INTERVAL.seconds}s", "max_age": f"{HOUR.seconds // 2}s"}
        config = local_and_far(peer, tmp_path) | {"delivery": {"retry": retry}}
        async with Delivery(store, config, clock=clock.now) as delivery:
            (record,) = booked(ledger, [f"you@{FAR}"])
            await submit_all(store, [record])
            await wait_queued(store, State.DEFERRED)
            monkeypatch.setattr(server_clock, "datetime", _jumped(jump))
            await retry_now(delivery, record)
            await until(lambda: sum("RCPT" in each for each in peer.commands) == 2, seconds=30)
            (waiting,) = await wait_queued(store, State.DEFERRED, seconds=30)
            assert waiting.attempts == 2
            due = waiting.due_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
            assert INTERVAL / 2 < due < 2 * INTERVAL
            peer.script(rcpt="250 2.1.5 ok")
            await retry_now(delivery, record)
            await wait_queued(store, seconds=30)
            collect(ledger, peer.mails)
    assert ledger.problems(duplicates_allowed=0) == []


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
async def test_mail_is_as_old_as_the_server_says_whatever_clock_ingress_has(
    store: JetStream, tmp_path: Path, jump: timedelta
) -> None:
    """By the time that ingress wrote, a mail would be given up at once, or an hour late."""
    async with SmtpPeer(rcpt="451 4.3.0 not now") as peer:
        config = local_and_far(peer, tmp_path) | {"delivery": {"retry": {"max_age": "30m"}}}
        async with Delivery(store, config):
            accepted = datetime.now(UTC)
            record = mail(f"you@{FAR}")
            record.accept_time.FromDatetime(accepted + jump)
            await submit_all(store, [record])
            (waiting,) = await wait_queued(store, State.DEFERRED, seconds=30)
    assert waiting.attempts == 1
    assert abs(waiting.accept_time.ToDatetime(tzinfo=UTC) - accepted) < HOUR / 2


def _jumped(by: timedelta) -> type[datetime]:
    """What a module takes for the machine's clock."""

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    return Jumped
