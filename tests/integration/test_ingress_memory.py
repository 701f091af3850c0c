"""Memory of the process does not grow with the messages."""

from __future__ import annotations

from pathlib import Path

from tests.support.ingress_process import running_process
from tests.support.nats_server import NatsServer
from tests.support.scripted_policy import ScriptedPolicy, serve
from tests.support.smtp_client import Client, connected

_MIB = 2**20
_LINE = b"0123456789" * 7 + b"\r\n"
_BLOCK = _LINE * 1000


async def _large(client: Client, octets: int) -> str:
    await client.begin()
    client.send(b"DKIM-Signature: c=relaxed/relaxed\r\n\r\n")
    for _ in range(octets // len(_BLOCK)):
        client.send(_BLOCK)
        await client.writer.drain()
    return await client.content(b"")


async def test_the_largest_message_costs_less_than_32_mib(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as ingress,
        connected(ingress.port) as client,
    ):
        await client.hello()
        for _ in range(5):
            assert (await client.mail(b"Subject: x\r\n\r\ntext\r\n")).startswith("250 ")
        idle = ingress.memory_octets()
        assert (await _large(client, 99_500_000)).startswith("250 ")
        assert ingress.memory_octets() - idle < 32 * _MIB
        # And no limit by accident: more than the default limit is refused, in the same memory.
        assert (await _large(client, 130_000_000)).startswith("552 ")
        assert ingress.memory_octets() - idle < 32 * _MIB
