"""What strangers make us remember has its bound, and mail goes on at it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.common.config.policy import Greylist as GreylistSettings
from services.common.jetstream import JetStream, NatsSettings, Outgoing
from services.common.mail.address import parse_mailbox
from services.common.queue.subjects import QUEUE_STREAM, RecordKey, State
from services.common.store import Full
from services.common.topology import (
    CALLOUTS_MAX_OCTETS,
    CALLOUTS_SHARE,
    CALLOUTS_STREAM,
    TopologySettings,
    ensure,
    streams,
    verify,
)
from services.policy.callout.memory import CalloutMemory, Known
from services.policy.greylist import Greylist
from tests.support.nats_server import NatsServer
from tests.support.subjects import envelope

STORAGE = 60_000_000
SHARE = STORAGE // CALLOUTS_SHARE
SETTINGS = TopologySettings(events_max_octets=1 << 20)
CHUNK_OCTETS = 500_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JetStream]:
    """A store without streams."""
    server = NatsServer(tmp_path / "nats", storage=str(STORAGE))
    server.start()
    opened = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await opened.start(wait_s=10)
        yield opened
    finally:
        await opened.close()
        server.close()


async def fill(store: JetStream) -> None:
    """Store in the bucket until it takes nothing more."""
    bucket = await store.bucket("callouts")
    size = CHUNK_OCTETS
    for number in range(STORAGE // CHUNK_OCTETS):
        try:
            await bucket.put(f"x.{number}", bytes(size))
        except Full:
            if size == 1:
                return
            size = max(size // 10, 1)
    pytest.fail("the bucket has no bound of its own")


async def test_at_the_bound_mail_goes_on_and_nothing_new_is_remembered(store: JetStream) -> None:
    await ensure(store, SETTINGS)
    greylist, memory = Greylist(store), CalloutMemory(store)
    settings = GreylistSettings()

    async def admits(sender: str) -> bool:
        return await greylist.admits(envelope(sender), "you@example.test", settings, dry_run=False)

    assert not await admits("early@example.org")
    await fill(store)
    assert await admits("late@example.org")
    assert not await admits("early@example.org")
    sender = parse_mailbox("late@example.org")
    await memory.keep(sender, Known(True, "mx.example.org", "250 ok", datetime.now(UTC)))
    day = timedelta(days=1)
    assert await memory.recall(sender, positive=day, negative=day) is None
    for number in range(10):
        subject = RecordKey("example.org", f"m-{number}").subject(State.READY)
        await store.publish(Outgoing(subject, bytes(CHUNK_OCTETS)))
    state = await store.stream_state(QUEUE_STREAM)
    assert state is not None
    assert state.messages == 10


@pytest.mark.parametrize(
    ("former", "bound"),
    [({}, SHARE), ({"max_bytes": -1}, SHARE), ({"max_bytes": 12_345_678}, 12_345_678)],
    ids=["none said", "older release", "tuned by hand"],
)
async def test_a_bucket_that_exists_is_safe_and_has_a_bound_afterwards(
    store: JetStream, former: dict[str, Any], bound: int
) -> None:
    await store.create_stream({**streams(SETTINGS)[CALLOUTS_STREAM], **former})
    assert not [line for line in await verify(store, SETTINGS) if CALLOUTS_STREAM in line]
    before = await config_of(store)
    changed = await ensure(store, SETTINGS)
    assert (CALLOUTS_STREAM in changed) == (bound == SHARE)
    assert await verify(store, SETTINGS) == []
    assert await config_of(store) == {**before, "max_bytes": bound}
    assert await ensure(store, SETTINGS) == []


async def config_of(store: JetStream) -> dict[str, Any]:
    state = await store.stream_state(CALLOUTS_STREAM)
    assert state is not None
    return dict(state.config)


async def test_a_large_storage_gives_no_more_than_is_useful(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", storage="10GB")
    server.start()
    store = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await store.start(wait_s=10)
        await ensure(store, SETTINGS)
        assert (await config_of(store))["max_bytes"] == CALLOUTS_MAX_OCTETS
    finally:
        await store.close()
        server.close()
