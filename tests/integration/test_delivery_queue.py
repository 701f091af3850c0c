"""The queue under delivery: nothing lost, nothing done twice, nobody waiting behind anybody."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import Delivery as Handed
from services.common.jetstream import JetStream, Outgoing
from services.common.queue.record import deferred
from services.common.queue.subjects import (
    DEAD_STREAM,
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    State,
)
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from services.delivery.dead import REASON_HEADER, SUBJECT_HEADER
from services.delivery.ledger import Ledger
from tests.support.delivery import (
    Delivery,
    contents,
    events,
    mail,
    queued,
    submit,
    until,
    wait_queued,
)
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.smtp_peer import Call, Drip, Silence, SmtpPeer, Then

SLOW = "slow.test"
FAST = "fast.test"


def relays(**hops: str) -> dict[str, Any]:
    return {"domains": {"relay": {f"{name}.test": f"smtp:{hop}" for name, hop in hops.items()}}}


def local(folder: Path) -> dict[str, Any]:
    return {"domains": {"local": ["example.test"]}, "mailbox": {"directory": str(folder)}}


def stored_mails(folder: Path) -> list[bytes]:
    new = folder / "example.test" / "you" / "new"
    return [path.read_bytes() for path in new.iterdir()] if new.exists() else []


def attempts(commands: list[str]) -> int:
    return sum(command.startswith("MAIL ") for command in commands)


# --- deferring ----------------------------------------------------------------------------------


async def test_a_deferred_mail_is_delivered_when_its_time_comes(store: JetStream) -> None:
    async with SmtpPeer(dot=["451 4.3.0 not now", "250 ok"]) as peer:
        config = relays(fast=f"127.0.0.1:{peer.port}")
        config["delivery"] = {"retry": {"interval": "2s"}}
        record = mail(f"you@{FAST}")
        async with Delivery(store, config):
            await submit(store, record)
            (waiting,) = await wait_queued(store, State.DEFERRED)
            assert waiting.due_time.ToDatetime(tzinfo=UTC) > datetime.now(UTC)
            await wait_queued(store)
        assert len(peer.mails) == 1
    assert await contents(store) == []
    told = await events(store, record.message_id)
    assert [happened.attempt.attempt for happened in told] == [1, 2]


async def test_a_domain_of_a_newer_configuration_is_waited_for(
    store: JetStream, tmp_path: Path
) -> None:
    async with Delivery(store, {}) as delivery:
        await submit(store, mail("you@example.test", authenticated_account=""))
        (waiting,) = await wait_queued(store, State.DEFERRED)
        assert waiting.attempts == 0
        assert "does not know yet" in waiting.wait_reason
        delivery.source.change(local(tmp_path))
        await store.publish(deferred(waiting, datetime.now(UTC)))
        await wait_queued(store)
    assert len(stored_mails(tmp_path)) == 1


async def test_the_last_failure_is_told_to_the_sender_and_ends_the_mail(
    store: JetStream, tmp_path: Path
) -> None:
    async with SmtpPeer(rcpt="450 4.2.0 never really") as peer:
        config = local(tmp_path)
        config["domains"]["relay"] = {FAST: f"smtp:127.0.0.1:{peer.port}"}
        config["delivery"] = {"retry": {"interval": "1s", "max_retries": 2}}
        async with Delivery(store, config):
            await submit(store, mail(f"them@{FAST}", sender="you@example.test"))
            await until(lambda: stored_mails(tmp_path), seconds=20)
            await wait_queued(store)
    (report,) = stored_mails(tmp_path)
    assert report.startswith(b"Return-Path: <>\r\n")
    assert b"Action: failed\r\nStatus: 4.2.0\r\n" in report
    assert f"Final-Recipient: rfc822; them@{FAST}".encode() in report
    assert b"attempts: 3" in report
    assert await contents(store) == []


async def test_a_delay_is_told_once_and_the_mail_is_delivered_in_the_end(
    store: JetStream, tmp_path: Path
) -> None:
    async with SmtpPeer(rcpt="450 4.2.0 come again") as peer:
        config = local(tmp_path)
        config["domains"]["relay"] = {FAST: f"smtp:127.0.0.1:{peer.port}"}
        config["delivery"] = {
            "retry": {"interval": "1s", "max_retries": 1000, "delay_notice_after": "2s"}
        }
        async with Delivery(store, config):
            await submit(store, mail(f"them@{FAST}", sender="you@example.test"))
            await until(lambda: stored_mails(tmp_path), seconds=30)
            told_at = len(peer.commands)
            await until(lambda: attempts(peer.commands[told_at:]) >= 2, seconds=30)
            peer.script(rcpt="250 ok")
            await wait_queued(store, seconds=30)
    (report,) = stored_mails(tmp_path)
    assert b"Action: delayed\r\nStatus: 4.2.0\r\n" in report
    assert len(peer.mails) == 1


async def test_a_lost_acknowledgement_costs_no_second_delivery(
    store: JetStream, tmp_path: Path
) -> None:
    record = mail("you@example.test")
    await submit(store, record)
    await move_to_stream(Batcher(store), record)
    later = datetime.now(UTC) + timedelta(hours=1)
    await store.publish(deferred(record, later))
    # A record that is no longer fresh may have been in hand before: its newer states are looked up.
    await asyncio.sleep(1.2)
    async with Delivery(store, local(tmp_path)):
        await wait_queued(store, State.DEFERRED)
    assert stored_mails(tmp_path) == []


async def wait_told(store: JetStream, message: str) -> None:
    """Return once the attempt is on record: that is stored a moment after the acknowledgement."""
    async with asyncio.timeout(20):
        while True:
            if any(each.HasField("attempt") for each in await events(store, message)):
                return
            await asyncio.sleep(0.02)


async def test_a_record_that_went_on_is_not_tried_again(store: JetStream) -> None:
    """A process died between the deferred record and its acknowledgement."""
    record = mail(f"you@{FAST}")
    await submit(store, record)
    dead = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    (hand,) = [delivery async for delivery in dead.pull(1, wait_s=30)]
    await move_to_stream(Batcher(store), record)
    await store.publish(deferred(record, datetime.now(UTC)))
    async with SmtpPeer(dot="250 ok") as peer:
        async with Delivery(store, relays(fast=f"127.0.0.1:{peer.port}")):
            await peer.wait_mails(1)
            await wait_queued(store, State.READY)
            await wait_told(store, record.message_id)
            await hand.give_back()
            await wait_queued(store)
        assert len(peer.mails) == 1
    await dead.close()


async def test_what_another_worker_finished_does_not_come_back(store: JetStream) -> None:
    record = mail(f"you@{FAST}")
    loop = asyncio.get_running_loop()

    def finish_elsewhere() -> None:
        finished.append(loop.create_task(store.purge(QUEUE_STREAM, "queue.ready.>")))

    finished: list[asyncio.Task[int]] = []
    dot = Then([Call(finish_elsewhere), Drip("451 4.3.0 not now")])
    async with SmtpPeer(dot=dot) as peer:
        config = relays(fast=f"127.0.0.1:{peer.port}")
        async with Delivery(store, config, lease_s=0):
            await submit(store, record)
            await until(lambda: finished and finished[0].done())
            await asyncio.sleep(1.5)
    assert await queued(store) == []
    assert await contents(store) == []


async def in_hand(store: JetStream, record: QueuedMessage) -> Handed:
    """The record as a worker has it that is about to defer it."""
    await submit(store, record)
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    (hand,) = [delivery async for delivery in consumer.pull(1, wait_s=30)]
    await consumer.close()
    return hand


async def test_a_deferral_in_doubt_that_came_to_pass_is_not_repeated(store: JetStream) -> None:
    record = mail(f"you@{FAST}")
    hand = await in_hand(store, record)
    await move_to_stream(Batcher(store), record)
    # The server took it although nobody heard of that, and it has become due.
    await store.publish(deferred(record, datetime.now(UTC)))

    async def is_due_again() -> bool:
        newest = await store.last(QUEUE_STREAM, hand.subject)
        return newest is not None and newest.sequence > hand.sequence

    await eventually(is_due_again, seconds=20)
    await Ledger(store).defer(hand, record, datetime.now(UTC) + timedelta(hours=1), held_s=0)

    await wait_queued(store, State.READY)


async def test_a_deferral_in_doubt_is_replaced_by_the_next_try(store: JetStream) -> None:
    record = mail(f"you@{FAST}")
    hand = await in_hand(store, record)
    await move_to_stream(Batcher(store), record)
    later = datetime.now(UTC) + timedelta(hours=1)
    await store.publish(deferred(record, later))

    await Ledger(store).defer(hand, record, later, held_s=0)

    await wait_queued(store, State.DEFERRED)


async def test_a_record_that_was_finished_elsewhere_is_not_deferred(store: JetStream) -> None:
    record = mail(f"you@{FAST}")
    hand = await in_hand(store, record)
    await store.purge(QUEUE_STREAM, hand.subject)

    await Ledger(store).defer(hand, record, datetime.now(UTC), held_s=0)

    assert await queued(store) == []


async def test_a_delivery_that_is_repeated_leaves_one_mail(
    store: JetStream, tmp_path: Path
) -> None:
    record = mail("you@example.test")
    async with Delivery(store, local(tmp_path)):
        for _ in range(2):
            await submit(store, record)
            await wait_queued(store)
    assert len(stored_mails(tmp_path)) == 1


# --- what cannot be read ------------------------------------------------------------------------


def newer_schema() -> bytes:
    record = mail("you@example.test")
    record.schema_version = 99
    return record.SerializeToString()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff garbage", "not a record"),
        (b"", "schema 0"),
        (newer_schema(), "schema 99"),
        (mail("you@example.test").SerializeToString(), "another subject"),
    ],
    ids=["garbage", "empty", "newer", "foreign"],
)
async def test_what_cannot_be_read_is_set_aside_and_the_rest_flows(
    store: JetStream, tmp_path: Path, data: bytes, reason: str
) -> None:
    subject = "queue.ready.example~test.broken-1"
    await store.publish(Outgoing(subject, data))
    async with Delivery(store, local(tmp_path)):
        await submit(store, mail("you@example.test"))
        await wait_queued(store)
    assert len(stored_mails(tmp_path)) == 1
    (dead,) = await store.page(DEAD_STREAM, "dead.>", after_sequence=0, count=10)
    assert dead.data == data
    assert dead.headers[SUBJECT_HEADER] == subject
    assert reason in dead.headers[REASON_HEADER]


# --- fairness -----------------------------------------------------------------------------------


async def test_a_slow_destination_delays_nobody_else(store: JetStream) -> None:
    """The slow one never gets as far as its greeting: who waits behind it waits for ever."""
    async with SmtpPeer(greeting=Silence()) as slow, SmtpPeer() as fast:
        config = relays(slow=f"127.0.0.1:{slow.port}", fast=f"127.0.0.1:{fast.port}")
        async with Delivery(store, config, drain_s=0.1):
            await submit(store, *(mail(f"you@{SLOW}") for _ in range(500)))
            await until(lambda: slow.open, seconds=40)
            await submit(store, *(mail(f"you@{FAST}") for _ in range(100)))
            await fast.wait_mails(100, seconds=40)
            assert slow.most_open <= 20
            assert not slow.commands
    waiting = [record for state, record in await queued(store) if state is State.DEFERRED]
    assert waiting
    assert all(record.attempts == 0 for record in waiting)


async def test_a_dead_destination_is_tried_by_few_and_the_others_wait_for_it(
    store: JetStream,
) -> None:
    config = relays(slow="127.0.0.1:1")
    async with Delivery(store, config):
        await submit(store, *(mail(f"you@{SLOW}") for _ in range(200)))
        waiting = await wait_queued(store, *[State.DEFERRED] * 200)
    tried = [record for record in waiting if record.attempts]
    assert 1 <= len(tried) <= 20
    parked = [record for record in waiting if not record.attempts]
    now = datetime.now(UTC)
    due = [(record.due_time.ToDatetime(tzinfo=UTC) - now).total_seconds() for record in parked]
    assert max(due) < 310


# --- stopping and crashing ----------------------------------------------------------------------


async def test_a_stopping_process_finishes_what_it_has_and_gives_back_the_rest(
    store: JetStream,
) -> None:
    async with SmtpPeer(delay_s=0.1) as quick, SmtpPeer(delay_s=30) as stuck:
        config = relays(fast=f"127.0.0.1:{quick.port}", slow=f"127.0.0.1:{stuck.port}")
        async with Delivery(store, config, drain_s=8.0):
            await submit(store, mail(f"you@{FAST}"), mail(f"you@{SLOW}"))
            await until(lambda: quick.connections and stuck.connections)
        assert len(quick.mails) == 1
        (left,) = await wait_queued(store, State.READY)
        assert left.destination == SLOW
    async with SmtpPeer() as peer:
        started = time.monotonic()
        async with Delivery(store, relays(slow=f"127.0.0.1:{peer.port}")):
            await peer.wait_mails(1)
        assert time.monotonic() - started < 15  # what is not given back comes after 20 at least


@pytest.mark.timed
async def test_mail_flows_again_after_a_crash_of_the_server(
    store: JetStream, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with Delivery(store, local(tmp_path)):
        await submit(store, mail("you@example.test"))
        await wait_queued(store)
        nats_server.kill()
        await asyncio.sleep(0.5)
        nats_server.start()
        back = time.monotonic()
        await until(lambda: store.connected, seconds=20)
        await submit(store, mail("you@example.test"))
        await until(lambda: len(stored_mails(tmp_path)) == 2, seconds=20)
        assert time.monotonic() - back < 10


async def test_a_result_is_kept_until_the_server_can_be_told(
    store: JetStream, nats_server: NatsServer
) -> None:
    async with SmtpPeer(dot="250 ok") as peer:
        async with Delivery(store, relays(fast=f"127.0.0.1:{peer.port}")):
            peer.script(data=Then([Call(nats_server.pause), "354 go on"]))
            await submit(store, mail(f"you@{FAST}"))
            await peer.wait_mails(1)
            await asyncio.sleep(1)
            nats_server.resume()
            await wait_queued(store)
        assert len(peer.mails) == 1


async def test_a_record_that_comes_back_after_its_end_is_dropped(store: JetStream) -> None:
    """It has no content any more, and would be tried until its sender is told of a failure."""
    record = mail(f"you@{FAST}", attempts=1)
    await move_to_stream(Batcher(store), record)
    record.due_time.FromDatetime(datetime.now(UTC))
    async with SmtpPeer() as peer:
        async with Delivery(store, relays(fast=f"127.0.0.1:{peer.port}")):
            await submit(store, record)
            await wait_queued(store, seconds=30)
            await wait_told(store, record.message_id)
            await submit(store, record)
            await wait_queued(store, seconds=30)
        assert len(peer.mails) == 1
