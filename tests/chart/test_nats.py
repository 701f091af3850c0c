"""A real nats-server with the chart's nats.conf: each user can do its part, and no more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common import topology
from services.common.jetstream import JetStream
from services.common.queue.subjects import DELIVERY_CONSUMER, EVENTS_STREAM, QUEUE_STREAM
from services.common.store import Outgoing, StoreError
from services.common.topology import TopologySettings
from tests.support.chart import container, render
from tests.support.chart_nats import ChartNats

REFUSED_SECONDS = 0.3
"""A request that may not be made is never answered."""

CHUNK = bytes(500_000)

Open = Callable[[str], AbstractAsyncContextManager[JetStream]]


@asynccontextmanager
async def connected(nats: ChartNats, user: str) -> AsyncIterator[JetStream]:
    store = JetStream(nats.settings(user))
    await store.start(wait_s=10)
    assert store.connected, f"{user} cannot log in"
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def running(number: int, folder: Path) -> AsyncIterator[ChartNats]:
    """So many nodes, with the volumes in a folder."""
    values = {"nats": {"replicas": number, "storage": {"size": "1Gi"}}}
    nats = ChartNats(render(values), folder)
    try:
        await asyncio.to_thread(nats.start)
        yield nats
    finally:
        nats.close()


async def made(nats: ChartNats, replicas: int) -> None:
    settings = TopologySettings(replicas=replicas)

    async def ensured() -> bool:
        # Each stream has leaders to elect first; the Job is started again as well when it fails.
        try:
            await topology.ensure(store, settings)
        except StoreError:
            return False
        return True

    async with connected(nats, "topology") as store:
        await eventually(ensured)
        assert await topology.verify(store, settings) == []


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartNats]:
    server = ChartNats(render({"nats": {"storage": {"size": "1Gi"}}}), tmp_path_factory.mktemp("n"))
    try:
        server.start()
        asyncio.run(made(server, 1))
        yield server
    finally:
        server.close()


@pytest.fixture
def user(nats: ChartNats) -> Open:
    return lambda name: connected(nats, name)


@pytest.mark.parametrize("name", ["ingress", "policy", "delivery", "topology"])
async def test_every_user_can_see_that_the_topology_is_safe(user: Open, name: str) -> None:
    async with user(name) as store:
        assert await topology.verify(store, TopologySettings()) == []


async def test_the_limit_is_85_percent_of_the_volume(user: Open) -> None:
    async with user("ingress") as store:
        assert (await store.storage_use()).limit == (1 << 30) * 85 // 100


async def test_a_mail_goes_from_ingress_to_delivery(user: Open) -> None:
    async with user("ingress") as ingress, user("delivery") as delivery:
        await ingress.publish(Outgoing("content.abc-1.1", b"chunk"))
        await ingress.publish_batch(
            [Outgoing(f"queue.ready.{name}~org.abc-1", b"record") for name in ("a", "b")]
        )
        consumer = delivery.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
        first, second = [each async for each in consumer.pull(2, wait_s=30)]
        await first.in_progress()
        await second.give_back()
        await delivery.publish(Outgoing("queue.held.a~org.abc-1", b""), expected_last_sequence=0)
        dead = await delivery.publish(Outgoing("dead.1-abc-1", b"record"))
        assert await delivery.subjects("DEAD", "dead.>", offset=0) == ["dead.1-abc-1"]
        await delivery.delete("DEAD", dead)
        await first.ack()
        (again,) = [each async for each in consumer.pull(1, wait_s=30)]
        assert again.subject == second.subject
        await again.ack()
        await consumer.close()
        page = await delivery.page(QUEUE_STREAM, "queue.>", after_sequence=0, count=10)
        assert [each.subject for each in page] == ["queue.held.a~org.abc-1"]
        assert await delivery.purge(QUEUE_STREAM, "queue.held.a~org.abc-1") == 1
        assert (await delivery.last("CONTENT", "content.abc-1.1")) is not None
        assert await ingress.purge("CONTENT", "content.abc-1.*") == 1


async def test_a_deferred_record_comes_back(user: Open) -> None:
    subject = "queue.ready.c~org.abc-1"
    async with user("delivery") as delivery:
        schedule = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": subject}
        await delivery.publish(Outgoing("queue.deferred.c~org.abc-1", b"record", schedule))
        consumer = delivery.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
        (due,) = [each async for each in consumer.pull(1, wait_s=30)]
        assert due.subject == subject
        await due.ack()
        await consumer.close()


async def test_events_are_told_kept_and_followed(user: Open) -> None:
    async with user("policy") as policy, user("delivery") as delivery:
        since = datetime.now(UTC) - timedelta(minutes=1)
        await policy.publish(Outgoing("events.e-1.verdict", b"judged"))
        for store in (policy, delivery):
            async with store.follow("EVENTS", "events.e-1.*", since=since) as following:
                assert (await anext(following)).data == b"judged"
        await delivery.tell(Outgoing("events.e-2.attempt", b"tried"))
        assert await policy.last("EVENTS", "events.e-1.verdict") is not None


OWNERS = {
    "accounts": "policy",
    "callouts": "policy",
    "destinations": "delivery",
    "logins": "ingress",
    "mta_sts": "delivery",
    "suppressions": "delivery",
}


@pytest.mark.parametrize("bucket", topology.BUCKETS)
async def test_buckets_are_written_and_listed_by_their_owner(user: Open, bucket: str) -> None:
    async with user(OWNERS[bucket]) as store:
        opened = await store.bucket(bucket)
        revision = await opened.create("a.b", b"1")
        await opened.update("a.b", b"2", revision=revision)
        assert await opened.keys() == ["a.b"]
        assert (await opened.get("a.b") or (b"", 0))[0] == b"2"
        await opened.delete("a.b")
        assert await opened.keys() == []


@pytest.mark.parametrize("bucket", ["destinations", "suppressions"])
async def test_delivery_removes_entries_that_are_out_of_date(user: Open, bucket: str) -> None:
    async with user("delivery") as delivery:
        subject = f"$KV.{bucket}.old"
        sequence = await delivery.publish(Outgoing(subject, b"1"))
        assert list(await delivery.last_of(f"KV_{bucket}", [subject])) == [subject]
        assert await delivery.purge(f"KV_{bucket}", subject, up_to=sequence) == 1


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("ingress", "queue.deferred.a~org.x-1"),
        ("ingress", "queue.held.a~org.x-1"),
        ("ingress", "$KV.accounts.x"),
        ("ingress", "events.x-1.verdict"),
        ("policy", "queue.ready.a~org.x-1"),
        ("policy", "content.x-1.1"),
        ("policy", "$KV.destinations.x"),
        ("delivery", "$KV.accounts.x"),
        ("topology", "queue.ready.a~org.x-1"),
        ("topology", "$KV.accounts.x"),
    ],
)
async def test_users_cannot_write_what_is_not_theirs(user: Open, name: str, subject: str) -> None:
    async with user(name) as store:
        with pytest.raises(StoreError):
            await store.publish(Outgoing(subject, b""), timeout_s=REFUSED_SECONDS)


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("ingress", "KV_accounts"),
        ("ingress", "QUEUE"),
        ("ingress", "CONTENT"),
        ("policy", "QUEUE"),
        ("policy", "CONTENT"),
        ("delivery", "KV_accounts"),
        ("topology", "KV_accounts"),
        ("topology", "CONTENT"),
    ],
)
async def test_users_cannot_read_what_is_not_theirs(user: Open, name: str, stream: str) -> None:
    async with user(name) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(REFUSED_SECONDS):
                await store.at(stream, 1)


@pytest.mark.parametrize("name", ["ingress", "policy", "delivery", "topology"])
@pytest.mark.parametrize("request_", ["STREAM.DELETE.QUEUE", "STREAM.UPDATE.QUEUE"])
async def test_nobody_can_change_or_delete_a_stream(user: Open, name: str, request_: str) -> None:
    async with user(name) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(REFUSED_SECONDS):
                await store.ask(f"$JS.API.{request_}", {})


async def test_topology_alone_may_bound_what_strangers_fill(user: Open) -> None:
    async with user("policy") as policy:
        found = await policy.stream_state(topology.CALLOUTS_STREAM)
        assert found is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(REFUSED_SECONDS):
                await policy.update_stream(found.config)
    unbounded = {**found.config, "max_bytes": -1}
    async with user("topology") as store:
        await store.update_stream(unbounded)
        assert await topology.ensure(store, TopologySettings()) == [topology.CALLOUTS_STREAM]
        changed = await store.stream_state(topology.CALLOUTS_STREAM)
    assert changed is not None
    assert changed.config == found.config


async def test_topology_alone_may_bound_the_events_anew(user: Open) -> None:
    former, changed = TopologySettings(), TopologySettings(events_max_age_s=60)
    async with user("delivery") as delivery:
        found = await delivery.stream_state(EVENTS_STREAM)
        assert found is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(REFUSED_SECONDS):
                await delivery.update_stream(found.config)
    async with user("topology") as store:
        assert await topology.ensure(store, changed) == [EVENTS_STREAM]
        assert await topology.ensure(store, former) == [EVENTS_STREAM]
        assert await topology.departures(store, former) == []


async def test_nobody_reads_the_answers_to_others(user: Open) -> None:
    async with user("ingress") as ingress, user("policy") as policy:
        heard: list[bytes] = []

        async def hear(message: object) -> None:
            heard.append(b"")

        await ingress.client.subscribe("_INBOX.>", cb=hear)
        await ingress.client.subscribe("_INBOX.policy.>", cb=hear)
        assert await (await policy.bucket("accounts")).get("nobody") is None
        await ingress.client.flush()
        assert heard == []


@pytest.mark.timeout(240)
async def test_three_nodes_keep_mail_when_one_is_gone(tmp_path: Path) -> None:
    async with running(3, tmp_path) as cluster:
        await made(cluster, 3)
        async with connected(cluster, "ingress") as ingress:
            await eventually(lambda: _published(ingress, Outgoing("content.abc-1.1", CHUNK)))
            assert (await ingress.storage_use()).limit == 3 * ((1 << 30) * 85 // 100)
            # The nodes tell each other what they store.
            await eventually(lambda: _uses(ingress, 3 * len(CHUNK)))
        cluster.kill(1)
        async with connected(cluster, "delivery") as delivery:
            # A new leader is elected first.
            await eventually(lambda: _published(delivery, Outgoing("queue.ready.a~org.a-1", b"")))
            await eventually(lambda: _keeps(delivery, "content.abc-1.1"))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_what_another_kind_of_server_stored_is_left_alone(
    before: int, after: int, tmp_path: Path
) -> None:
    """A cluster deletes what a node alone stored, which in turn cannot read what a cluster did."""
    async with running(before, tmp_path) as nats:
        await made(nats, before)
        async with connected(nats, "ingress") as ingress:
            await eventually(lambda: _published(ingress, Outgoing("content.abc-1.1", CHUNK)))
    stored = tmp_path / "node-0" / "jetstream"
    files = {path: path.stat().st_mtime_ns for path in stored.rglob("*")}
    with pytest.raises(RuntimeError, match="From one NATS node to three"):
        async with running(after, tmp_path):
            pass
    assert {path: path.stat().st_mtime_ns for path in stored.rglob("*")} == files
    async with running(before, tmp_path) as nats, connected(nats, "delivery") as delivery:
        await eventually(lambda: _keeps(delivery, "content.abc-1.1"))


async def eventually(done: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so; a minute at most."""
    async with asyncio.timeout(60):
        while True:
            if await done():
                return
            await asyncio.sleep(0.1)


async def _uses(store: JetStream, octets: int) -> bool:
    return (await store.storage_use()).used >= octets


async def _keeps(store: JetStream, subject: str) -> bool:
    try:
        return await store.last("CONTENT", subject) is not None
    except StoreError:
        return False


async def _published(store: JetStream, message: Outgoing) -> bool:
    try:
        await store.publish(message)
    except StoreError:
        return False
    return True


def test_memory_follows_from_the_records_that_may_wait() -> None:
    for records, mebibytes in ((1000, 515), (200_000, 1293), (1_000_000, 4418)):
        box = container(render({"nats": {"deferredRecords": records}}).pod("nats"))
        assert box["resources"]["limits"]["memory"] == f"{mebibytes}Mi"
        (limit,) = [each for each in box["env"] if each["name"] == "GOMEMLIMIT"]
        assert limit["value"] == f"{mebibytes * 9 // 10}MiB"
