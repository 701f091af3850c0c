"""The nats-server that fault tests kill: it keeps what it acknowledged, and its address."""

import nats

from tests.support.nats_server import NatsServer


async def test_what_was_acknowledged_survives_a_kill(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(name="KEEP", subjects=["keep.>"])
    await client.jetstream().publish("keep.one", b"acknowledged")
    await client.close()

    nats_server.kill()
    assert not nats_server.is_running
    nats_server.start()

    client = await nats.connect(nats_server.url)
    kept = await client.jetstream().get_msg("KEEP", subject="keep.one")
    await client.close()
    assert kept.data == b"acknowledged"


async def test_it_stops_when_asked(nats_server: NatsServer) -> None:
    nats_server.stop()
    assert not nats_server.is_running
    nats_server.start()
    assert nats_server.is_running
