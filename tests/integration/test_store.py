"""The JetStream adapter and the topology against a real nats-server."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.transport import TcpTransport

from services.common.jetstream import (
    PULL_HEARTBEAT_S,
    Conflict,
    JetStream,
    Missing,
    NatsSettings,
    Outgoing,
    TooLarge,
    Unavailable,
)
from services.common.queue.subjects import (
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    RecordKey,
    State,
    record_filter,
    schedule_headers,
)
from services.common.topology import CONSUMERS, TopologySettings, ensure, streams, verify
from tests.support.nats_server import NatsServer
from tests.support.soon import soon

SETTINGS = TopologySettings()
PATIENCE_S = 2 * PULL_HEARTBEAT_S  # for what must not come


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    opened = JetStream(NatsSettings(urls=[nats_server.url], client_name="test"))
    await opened.start(wait_s=10)
    await ensure(opened, SETTINGS)
    await opened.purge(QUEUE_STREAM, ">")
    yield opened
    await opened.close()


def key(message_id: str, destination: str = "example.org") -> RecordKey:
    return RecordKey(destination, message_id)


async def ready(store: JetStream, count: int, *, wait_s: float = 30) -> list[str]:
    """The subjects of up to `count` ready records, acknowledged."""
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    subjects = []
    async for delivery in consumer.pull(count, wait_s=wait_s):
        subjects.append(delivery.subject)
        await delivery.ack()
    await consumer.close()
    return sorted(subjects)


async def connection(store: JetStream, *, wanted: bool) -> None:
    """Return when the connection stands, or is lost."""
    changed = asyncio.Event()
    store.on_connection_change(lambda _: changed.set())
    async with asyncio.timeout(30):
        while store.connected is not wanted:
            await changed.wait()
            changed.clear()


async def test_what_is_missing_is_named_then_created_then_safe(tmp_path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await store.start(wait_s=10)
        problems = await verify(store, SETTINGS)
        assert problems[0] == "stream QUEUE is missing; run `gatepost topology ensure`"
        created = await ensure(store, SETTINGS)
        assert set(created) == {*streams(SETTINGS), *(f"QUEUE/{name}" for name in CONSUMERS)}
        assert await verify(store, SETTINGS) == []
        assert await ensure(store, SETTINGS) == []
    finally:
        await store.close()
        server.close()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"max_age": 10**12}, "stream QUEUE: max_age is 1000000000000, it must be 0"),
        ({"max_msgs": 5}, "stream QUEUE: max_msgs is 5, it must be -1"),
        ({"retention": "limits"}, "stream QUEUE: retention is 'limits', it must be 'workqueue'"),
        ({"storage": "memory"}, "stream QUEUE: storage is 'memory', it must be 'file'"),
    ],
)
async def test_an_unsafe_queue_is_named(tmp_path, change, problem) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await store.start(wait_s=10)
        await store.create_stream({**streams(SETTINGS)[QUEUE_STREAM], **change})
        await ensure(store, SETTINGS)
        assert problem in await verify(store, SETTINGS)
    finally:
        await store.close()
        server.close()


@pytest.mark.parametrize(
    ("change", "problems", "brought_up"),
    [
        ({"ack_wait": 60 * 10**9, "max_ack_pending": 2000}, [], True),
        ({"ack_wait": 300 * 10**9, "max_ack_pending": 50}, [], False),
        (
            {"ack_wait": 5 * 10**9},
            ["consumer delivery: ack_wait is 5000000000, it must be at least 30000000000"],
            False,
        ),
    ],
    ids=["older release", "tuned by hand", "too short"],
)
async def test_a_consumer_that_exists_is_accepted_brought_up_or_named(
    tmp_path, change, problems, brought_up
) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await store.start(wait_s=10)
        await store.create_stream(streams(SETTINGS)[QUEUE_STREAM])
        await store.create_consumer(QUEUE_STREAM, {**CONSUMERS[DELIVERY_CONSUMER], **change})
        others = {*streams(SETTINGS), *(f"QUEUE/{name}" for name in CONSUMERS)}
        others -= {QUEUE_STREAM, f"QUEUE/{DELIVERY_CONSUMER}"}
        changed = set(await ensure(store, SETTINGS)) - others
        assert changed == ({f"QUEUE/{DELIVERY_CONSUMER}"} if brought_up else set())
        assert await verify(store, SETTINGS) == problems
        found = await store.consumer_state(QUEUE_STREAM, DELIVERY_CONSUMER)
        expected = CONSUMERS[DELIVERY_CONSUMER] if brought_up else change
        assert {key: found.config[key] for key in change} == {key: expected[key] for key in change}
    finally:
        await store.close()
        server.close()


async def test_a_batch_is_stored_whole(store: JetStream) -> None:
    keys = [key("batch-1", f"d{n}.example") for n in range(200)]
    await store.publish_batch([Outgoing(k.subject(State.READY), b"x") for k in keys])
    assert await ready(store, 200) == sorted(k.subject(State.READY) for k in keys)


async def test_a_batch_that_cannot_be_stored_leaves_nothing(store: JetStream) -> None:
    good = Outgoing(key("batch-2").subject(State.READY), b"x")
    too_large = Outgoing(key("batch-2", "b.example").subject(State.READY), b"x" * 3_000_000)
    with pytest.raises(TooLarge):
        await store.publish_batch([good, good, too_large])
    assert await store.page(QUEUE_STREAM, "queue.>", after_sequence=0, count=10) == []


async def test_what_the_server_never_takes_is_told_from_an_outage(store: JetStream) -> None:
    subject = key("large-1").subject(State.READY)
    with pytest.raises(TooLarge):
        await store.publish(Outgoing(subject, bytes(1024 * 1024 + 1)))
    await store.publish(Outgoing(subject, bytes(1000 * 1024)))
    assert await ready(store, 1) == [subject]


async def test_the_last_messages_of_many_subjects_are_found_together(store: JetStream) -> None:
    keys = [key(f"last-{number}") for number in range(5)]
    for k in keys[:2]:
        await store.publish(Outgoing(k.subject(State.HELD), b"old"))
        await store.publish(Outgoing(k.subject(State.HELD), k.message_id.encode()))
    subjects = [k.subject(State.HELD) for k in keys]
    found = await store.last_of(QUEUE_STREAM, subjects)
    assert {subject: each.data for subject, each in found.items()} == {
        subjects[0]: b"last-0",
        subjects[1]: b"last-1",
    }
    assert await store.last_of(QUEUE_STREAM, subjects[2:]) == {}


async def test_a_deferred_record_becomes_ready_at_its_time(store: JetStream) -> None:
    k = key("sched-1")
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    await store.publish(Outgoing(k.subject(State.DEFERRED), b"x", schedule_headers(k, due)))
    assert await ready(store, 1) == [k.subject(State.READY)]
    assert datetime.now(UTC) >= due
    assert await store.last(QUEUE_STREAM, k.subject(State.DEFERRED)) is None


async def test_publishing_again_replaces_the_time(store: JetStream) -> None:
    k = key("sched-2")
    later = datetime.now(UTC) + timedelta(hours=1)
    subject = k.subject(State.DEFERRED)
    first = await store.publish(Outgoing(subject, b"old", schedule_headers(k, later)))
    past = datetime.now(UTC) - timedelta(seconds=5)
    await store.publish(
        Outgoing(subject, b"new", schedule_headers(k, past)), expected_last_sequence=first
    )
    assert await ready(store, 1) == [k.subject(State.READY)]
    assert await ready(store, 1, wait_s=PATIENCE_S) == []


async def test_expected_sequences_keep_two_writers_apart(store: JetStream) -> None:
    subject = key("conflict-1").subject(State.HELD)
    sequence = await store.publish(Outgoing(subject, b"1"), expected_last_sequence=0)
    with pytest.raises(Conflict):
        await store.publish(Outgoing(subject, b"2"), expected_last_sequence=0)
    await store.publish(Outgoing(subject, b"3"), expected_last_sequence=sequence)
    stored = await store.last(QUEUE_STREAM, subject)
    assert stored is not None
    assert stored.data == b"3"


async def test_pages_follow_each_other(store: JetStream) -> None:
    for n in range(25):
        await store.publish(Outgoing(key(f"page-{n}").subject(State.HELD), str(n).encode()))
    found: list[bytes] = []
    after = 0
    while page := await store.page(
        QUEUE_STREAM, record_filter(state=State.HELD), after_sequence=after, count=10
    ):
        found += [stored.data for stored in page]
        after = page[-1].sequence
    assert found == [str(n).encode() for n in range(25)]


async def test_a_message_that_is_not_acknowledged_comes_again(store: JetStream) -> None:
    await store.publish(Outgoing(key("again-1").subject(State.READY), b"x"))
    consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
    (delivery,) = [d async for d in consumer.pull(1, wait_s=30)]
    await delivery.in_progress()
    await delivery.give_back()
    (again,) = [d async for d in consumer.pull(1, wait_s=30)]
    assert again.sequence == delivery.sequence
    await again.ack()
    assert [d async for d in consumer.pull(1, wait_s=PATIENCE_S)] == []


async def test_a_listing_is_whole_however_many_are_made_at_once(store: JetStream) -> None:
    bucket = await store.bucket("accounts")
    names = [f"listed.{number:03}" for number in range(300)]
    await asyncio.gather(*(bucket.put(name, b"x") for name in names))
    await asyncio.gather(*(bucket.delete(name) for name in names[::3]))
    left = sorted({*names} - {*names[::3]})
    try:
        for listing in await asyncio.gather(*(bucket.keys() for _ in range(20))):
            assert listing == left
    finally:
        await asyncio.gather(*(bucket.delete(name) for name in left))
    assert await bucket.keys() == []


async def test_a_bucket_keeps_revisions(store: JetStream) -> None:
    bucket = await store.bucket("accounts")
    assert await bucket.get("a") is None
    revision = await bucket.create("a", b"1")
    with pytest.raises(Conflict):
        await bucket.create("a", b"2")
    with pytest.raises(Conflict):
        await bucket.update("a", b"2", revision=revision + 1000)
    revision = await bucket.update("a", b"2", revision=revision)
    assert await bucket.get("a") == (b"2", revision)
    assert await bucket.keys() == ["a"]
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.keys() == []
    await bucket.create("a", b"3")
    await bucket.delete("a")


async def test_what_does_not_exist_is_missing_or_unavailable(store: JetStream) -> None:
    with pytest.raises(Unavailable):
        await store.publish(Outgoing("nobody.listens", b""))
    with pytest.raises(Missing):
        await store.bucket("nosuch")
    assert await store.stream_state("NOSUCH") is None
    assert await store.consumer_state(QUEUE_STREAM, "nosuch") is None


@pytest.mark.timed
async def test_calls_fail_at_once_while_nats_is_away_and_nothing_lands_late(tmp_path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    changes: list[bool] = []
    late = [Outgoing(key(f"late-{n}").subject(State.READY), b"x") for n in (1, 2, 3)]
    try:
        await store.start(wait_s=10)
        await ensure(store, SETTINGS)
        store.on_connection_change(changes.append)
        server.kill()
        await connection(store, wanted=False)

        async def attempt() -> float:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await store.publish(late[0])
            with pytest.raises(Unavailable):
                await store.publish_batch(late[1:])
            return time.monotonic() - began

        await soon(attempt, seconds=1)
        server.start()
        await connection(store, wanted=True)
        await store.publish(Outgoing(key("fresh-1").subject(State.READY), b"x"))
        assert await ready(store, 1) == [key("fresh-1").subject(State.READY)]
        assert await ready(store, 1, wait_s=PATIENCE_S) == []
        assert changes == [False, True]
    finally:
        await store.close()
        server.close()


async def test_what_was_not_sent_when_the_connection_was_lost_is_never_sent(tmp_path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await store.start(wait_s=10)
        await ensure(store, SETTINGS)
        late = Outgoing(key("late-1").subject(State.READY), b"x")
        publishing = asyncio.create_task(store.publish(late, timeout_s=2))
        await asyncio.sleep(0)  # now it is with the client, which sends in a moment
        server.kill()
        server.start()
        with pytest.raises(Unavailable):
            await publishing
        await connection(store, wanted=True)
        await store.publish(Outgoing(key("fresh-1").subject(State.READY), b"x"))
        assert await ready(store, 1) == [key("fresh-1").subject(State.READY)]
        assert await ready(store, 1, wait_s=PATIENCE_S) == []
    finally:
        await store.close()
        server.close()


async def test_what_is_said_in_the_same_moment_is_sent_together(
    store: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = TcpTransport.writelines

    def counting(transport: TcpTransport, payload: list[bytes]) -> None:
        sent.append(len(payload))
        send(transport, payload)

    monkeypatch.setattr(TcpTransport, "writelines", counting)
    publishing = [
        store.publish(Outgoing(key(f"{number}-1").subject(State.READY), b"x"))
        for number in range(50)
    ]
    sequences = await asyncio.gather(*publishing)
    assert sequences == list(range(sequences[0], sequences[0] + 50))
    assert sent[0] == 50


@pytest.mark.timed
async def test_a_paused_server_is_a_time_out_not_a_hang(tmp_path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    slow = Outgoing(key("slow-1").subject(State.READY), b"x")
    try:
        await store.start(wait_s=10)
        await ensure(store, SETTINGS)
        server.pause()

        async def attempt() -> float:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await store.publish(slow, timeout_s=0.5)
            return time.monotonic() - began

        await soon(attempt, seconds=5)
    finally:
        server.resume()
        await store.close()
        server.close()


async def test_the_password_file_is_read_at_each_connection(tmp_path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    server = NatsServer(tmp_path / "nats")
    server.start()
    settings = NatsSettings(
        urls=[server.url], client_name="test", username="gatepost", password_file=password
    )
    store = JetStream(settings)
    try:
        await store.start(wait_s=1)
        assert not store.connected
        password.write_text("gatepost\n")
        await connection(store, wanted=True)
    finally:
        await store.close()
        server.close()
