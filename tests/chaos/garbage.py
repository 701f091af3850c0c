"""Records that no version of Gatepost wrote, put into the queue of a running installation."""

from __future__ import annotations

import asyncio

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream, NatsSettings, Outgoing
from services.common.queue.subjects import RecordKey, State
from tests.support.installation import Installation

GARBAGE = (
    b"",
    b"\xff\xff not a record",
    b"\n" * 100_000,
    QueuedMessage(
        schema_version=99, message_id="garbage-4", destination="x.example"
    ).SerializeToString(),
    QueuedMessage(schema_version=1, message_id="another-1").SerializeToString(),
)


def publish_garbage(installation: Installation) -> int:
    """Put one of each into the queue. Returns how many."""
    asyncio.run(_publish(installation))
    return len(GARBAGE)


async def _publish(installation: Installation) -> None:
    store = JetStream(
        NatsSettings(
            urls=[f"nats://127.0.0.1:{installation.ports['nats']}"],
            client_name="chaos",
            username="gatepost",
            password_file=installation.data / "nats" / "password",
        )
    )
    try:
        await store.start(wait_s=10)
        for number, octets in enumerate(GARBAGE):
            key = RecordKey("x.example", f"garbage-{number}")
            await store.publish(Outgoing(key.subject(State.READY), octets))
    finally:
        await store.close()
