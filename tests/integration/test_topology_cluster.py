"""The streams are made as soon as a cluster of three can hold them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.jetstream import JetStream, NatsSettings
from services.common.store import Unavailable
from services.common.topology import TopologySettings, ensure, verify
from tests.support.nats_cluster import NODES, NatsCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SETTINGS = TopologySettings(replicas=NODES)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    nodes = NatsCluster(tmp_path / "nats")
    yield nodes
    nodes.close()


async def test_a_node_that_comes_late_is_waited_for(cluster: NatsCluster) -> None:
    cluster.start_node(0)
    cluster.start_node(1)
    store = JetStream(NatsSettings(urls=cluster.urls, client_name="test"))
    await store.start(wait_s=20)
    try:
        with pytest.raises(Unavailable):
            await ensure(store, SETTINGS, wait_s=5)
        made = asyncio.create_task(ensure(store, SETTINGS, wait_s=60))
        await asyncio.sleep(1)
        assert not made.done()
        cluster.start_node(2)
        assert "QUEUE" in await made
        assert await ensure(store, SETTINGS) == []
        one = TopologySettings(replicas=1)
        assert await verify(store, one) == []
        assert await ensure(store, one) == []
    finally:
        await store.close()
