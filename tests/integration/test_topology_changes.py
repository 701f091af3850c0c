"""What the settings of the topology do to streams that exist, and to services of older settings."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common import wiring
from services.common.jetstream import JetStream, NatsSettings
from services.common.queue.subjects import EVENTS_STREAM
from services.common.readiness import Readiness
from services.common.topology import TopologySettings, departures, ensure, verify
from tests.support.nats_server import NatsServer

FORMER = TopologySettings(events_max_octets=1 << 20)
COPIES = TopologySettings(events_max_octets=1 << 20, replicas=3)
ROUNDS = 3


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JetStream]:
    """With streams of the former settings."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    opened = JetStream(NatsSettings(urls=[server.url], client_name="test"))
    try:
        await opened.start(wait_s=10)
        await ensure(opened, FORMER)
        yield opened
    finally:
        await opened.close()
        server.close()


async def events(store: JetStream) -> tuple[int, int]:
    """For how many seconds, and in how many octets, they are kept."""
    state = await store.stream_state(EVENTS_STREAM)
    assert state is not None
    return state.config["max_age"] // 10**9, state.config["max_bytes"]


@pytest.mark.parametrize(
    ("changed", "bounds"),
    [
        (TopologySettings(events_max_age_s=3600, events_max_octets=2 << 20), (3600, 2 << 20)),
        # Less than the two minutes for which the server looks for duplicates.
        (TopologySettings(events_max_age_s=30, events_max_octets=1 << 20), (30, 1 << 20)),
        (TopologySettings(events_max_age_s=0, events_max_octets=0), (0, -1)),
    ],
    ids=["another", "short", "none"],
)
async def test_bounds_of_events_follow_and_nobody_is_unready_before(
    store: JetStream, changed: TopologySettings, bounds: tuple[int, int]
) -> None:
    assert await verify(store, changed) == []
    told = await departures(store, changed)
    assert told
    assert all("EVENTS" in line and "topology ensure" in line for line in told)
    assert await ensure(store, changed) == [EVENTS_STREAM]
    assert await events(store) == bounds
    assert await departures(store, changed) == []
    assert await ensure(store, changed) == []
    # A pod of before the upgrade goes on.
    assert await verify(store, FORMER) == []
    assert await ensure(store, FORMER) == [EVENTS_STREAM]
    assert await verify(store, FORMER) == []


async def test_streams_keep_the_copies_that_they_were_made_with(store: JetStream) -> None:
    assert await ensure(store, COPIES) == []
    assert await verify(store, COPIES) == []
    [line] = await departures(store, COPIES)
    assert line.startswith("nats.replicas is 3, and streams stay as made: QUEUE has 1, CONTENT has")


async def test_a_service_is_ready_and_tells_of_it_once(
    store: JetStream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = asyncio.Semaphore(0)

    async def counted(store: JetStream, settings: TopologySettings) -> list[str]:
        rounds.release()
        return await verify(store, settings)

    monkeypatch.setattr(wiring, "verify", counted)
    monkeypatch.setattr(wiring, "VERIFY_INTERVAL_S", 0.01)
    condition = Readiness().require("topology")
    with caplog.at_level(logging.WARNING):
        watch = asyncio.create_task(wiring._watch(store, COPIES, condition))
        for _ in range(ROUNDS):
            await rounds.acquire()
        watch.cancel()
    assert condition.met
    assert caplog.text.count("the topology is not as it is set") == 1
