"""A cold copy of NATS's files, as docs/operate.md makes it, brings back the queue."""

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from services.common.jetstream import JetStream, NatsSettings, Outgoing
from services.common.queue.subjects import (
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    RecordKey,
    State,
    schedule_headers,
)
from services.common.topology import TopologySettings, ensure, verify
from tests.chart.test_schemas import VERSIONS, complaints
from tests.support.chart import ROOT, render
from tests.support.nats_server import NatsServer

SETTINGS = TopologySettings()
OPERATE = ROOT / "docs/operate.md"


async def opened(nats: NatsServer) -> JetStream:
    store = JetStream(NatsSettings(urls=[nats.url], client_name="test"))
    await store.start(wait_s=10)
    return store


async def test_the_queue_comes_back_from_a_copy(tmp_path: Path) -> None:
    first = NatsServer(tmp_path / "first")
    first.start()
    store = await opened(first)
    await ensure(store, SETTINGS)
    ready, waits = RecordKey("a.test", "ready-1"), RecordKey("a.test", "waits-1")
    await store.publish(Outgoing(ready.subject(State.READY), b"ready"))
    due = datetime.now(UTC) + timedelta(seconds=3)
    await store.publish(
        Outgoing(waits.subject(State.DEFERRED), b"waits", schedule_headers(waits, due))
    )
    await store.publish(Outgoing("content.waits-1.1", b"content"))
    bucket = await store.bucket("accounts")
    await bucket.create("you", b"account")
    await store.close()
    first.stop()
    archive = tmp_path / "queue.tar"
    tar = ["tar", "-c", "-C", str(tmp_path / "first"), "-f", str(archive), "store"]
    await asyncio.to_thread(subprocess.run, tar, check=True)

    second = NatsServer(tmp_path / "second")
    untar = ["tar", "-x", "-C", str(tmp_path / "second"), "-f", str(archive)]
    await asyncio.to_thread(subprocess.run, untar, check=True)
    second.start()
    try:
        store = await opened(second)
        assert await verify(store, SETTINGS) == []
        found = {}
        consumer = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER)
        while len(found) < 2:
            async for message in consumer.pull(2, wait_s=10):
                found[message.subject] = message.data
                await message.ack()
        await consumer.close()
        assert found == {
            ready.subject(State.READY): b"ready",
            waits.subject(State.READY): b"waits",
        }
        assert await store.last("CONTENT", "content.waits-1.1") is not None
        assert (await (await store.bucket("accounts")).get("you") or (b"", 0))[0] == b"account"
        await store.close()
    finally:
        second.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_copies_is_one_that_kubernetes_and_the_namespace_take(version: str) -> None:
    """The manifest in the documentation, against the names that the chart gives."""
    text = OPERATE.read_text(encoding="utf-8").split(
        "kubectl apply --namespace mail --filename - <<'END'"
    )[1]
    pod = yaml.safe_load(text.split("\nEND\n")[0])
    assert complaints(version, pod) == []
    nats = render().pod("nats")["spec"]
    assert pod["spec"]["securityContext"] == nats["securityContext"]
    assert (
        pod["spec"]["containers"][0]["securityContext"] == nats["containers"][0]["securityContext"]
    )
    (volume,) = pod["spec"]["volumes"]
    claims = render().one("StatefulSet", "nats")["spec"]["volumeClaimTemplates"]
    name = f"{claims[0]['metadata']['name']}-gatepost-nats-0"
    assert volume["persistentVolumeClaim"]["claimName"] == name
