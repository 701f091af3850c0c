"""NATS that is away, hangs or is full; abandoned content: what is said, and what is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.common.store import Outgoing
from tests.support.edge import running_edge
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected

_TEXT = b"Subject: x\r\n\r\ntext\r\n"
_LARGE = b"Subject: x\r\n\r\n" + b"x" * 70 * 10_000 + b"\r\n"


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server that a test may stop."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.close()


async def test_without_nats_mail_is_put_off_at_once_and_taken_when_it_is_back(
    tmp_path: Path, own_nats: NatsServer
) -> None:
    async with running_edge(tmp_path, own_nats) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        own_nats.kill()
        started = time.monotonic()
        assert (await client.content(_TEXT)).startswith("451 4.3.2 ")
        assert (await client.say("MAIL FROM:<sender@example.net>")).startswith("451 4.3.2 ")
        assert time.monotonic() - started < 10
        own_nats.start()

        async def is_back() -> bool:
            return (await client.say("MAIL FROM:<sender@example.net>")).startswith("250 ")

        await eventually(is_back)
        await client.say("RSET")
        assert (await client.mail(_TEXT)).startswith("250 ")
        # What was put off is not delivered as well.
        await edge.cleaner.finish()
        assert len(await edge.mails()) == 1


async def test_a_nats_that_hangs_is_no_promise(tmp_path: Path, own_nats: NatsServer) -> None:
    async with running_edge(tmp_path, own_nats) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        own_nats.pause()
        try:
            started = time.monotonic()
            assert (await client.content(_TEXT)).startswith("451 4.3.2 ")
            assert time.monotonic() - started < 14
        finally:
            own_nats.resume()
        async with asyncio.timeout(30):
            await edge.cleaner.drained()
        assert await edge.mails() == []


async def test_a_hang_in_the_middle_of_a_large_mail(tmp_path: Path, own_nats: NatsServer) -> None:
    async with running_edge(tmp_path, own_nats) as edge, connected(edge.port()) as client:
        await client.hello()
        await client.begin()
        client.send(_LARGE)
        await eventually(edge.chunks)
        own_nats.pause()
        try:
            started = time.monotonic()
            assert (await client.content(_LARGE)).startswith("451 4.3.2 ")
            assert time.monotonic() - started < 14
        finally:
            own_nats.resume()
        async with asyncio.timeout(30):
            await edge.cleaner.drained()
        assert await edge.chunks() == 0


async def test_abandoned_content_is_removed(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            await client.begin()
            client.send(_LARGE)
            await eventually(edge.chunks)

        async def removed() -> bool:
            return not await edge.chunks()

        await eventually(removed)


async def test_a_mail_whose_session_is_ended_by_force_while_it_is_stored_is_taken_back(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        publish_batch, stored = edge.store.publish_batch, asyncio.Event()

        async def unacknowledged(records: Sequence[Outgoing]) -> None:
            await publish_batch(records)
            stored.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(edge.store, "publish_batch", unacknowledged)
        await client.hello()
        await client.begin("you@example.test", "you@example.org")
        client.send(_TEXT + b".\r\n")
        await stored.wait()
        assert len(await edge.mails()) == 2
        await edge.listeners.drain(grace_s=0)

        async def taken_back() -> bool:
            return not await edge.mails()

        await eventually(taken_back, seconds=30)


async def test_a_content_whose_session_is_ended_by_force_while_it_is_stored_is_removed(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        publish, stored, go_on = edge.store.publish, asyncio.Event(), asyncio.Event()

        async def slow(message: Outgoing) -> int:
            sequence = await publish(message)
            if message.subject.endswith(".1"):
                stored.set()
                await go_on.wait()
            return sequence

        monkeypatch.setattr(edge.store, "publish", slow)
        await client.hello()
        await client.begin()
        client.send(_LARGE + b".\r\n")
        await stored.wait()
        await edge.listeners.drain(grace_s=0)
        go_on.set()

        async def removed() -> bool:
            return not await edge.chunks()

        await eventually(removed, seconds=30)


async def test_content_of_a_refused_mail_is_removed(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    limit = {"smtp": {"max_message_size": 500_000}}
    async with running_edge(tmp_path, nats_server, limit) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            assert (await client.mail(_LARGE)).startswith("552 5.3.4 ")
            # The session is as good as new.
            assert (await client.mail(_TEXT)).startswith("250 ")
        await edge.cleaner.finish()
        assert await edge.chunks() == 0


async def test_above_the_watermark_no_mail_begins(
    tmp_path: Path, nats_server: NatsServer, expected_log: Callable[[str], None]
) -> None:
    expected_log("storage is full")
    async with running_edge(tmp_path, nats_server) as edge, connected(edge.port()) as client:
        await client.hello()
        assert (await client.mail(_TEXT)).startswith("250 ")
        edge.configure({"smtp": {"limits": {"storage_watermark": 1e-12}}})
        await edge.watch.look()
        assert (await client.say("MAIL FROM:<sender@example.net>")).startswith("452 4.3.1 ")
        edge.configure({"smtp": {"limits": {"storage_watermark": 1.0}}})
        await edge.watch.look()
        assert (await client.mail(_TEXT)).startswith("250 ")


async def test_a_full_store_is_said_to_be_full(tmp_path: Path) -> None:
    nats = NatsServer(tmp_path / "nats", storage="3MB")
    nats.start()
    try:
        async with running_edge(tmp_path, nats) as edge, connected(edge.port()) as client:
            await client.hello()
            replies = [await client.mail(_LARGE) for _ in range(8)]
            assert replies[0].startswith("250 ")
            assert replies[-1].startswith("452 4.3.1 ")
    finally:
        nats.close()


async def test_too_much_content_at_once_is_put_off(tmp_path: Path, nats_server: NatsServer) -> None:
    limits = {"smtp": {"limits": {"content_memory": "4MiB"}}}
    half = _TEXT + b"x" * 240_000 + b"\r\n"
    async with running_edge(tmp_path, nats_server, limits) as edge, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(edge.port())) for _ in range(25)]
        for client in clients:
            await client.hello()
            await client.begin()
            client.send(half)
        replies = [await client.content(b"") for client in clients]
        accepted = [reply for reply in replies if reply.startswith("250 ")]
        assert len(accepted) >= 10
        assert all(reply.startswith("452 4.3.1 ") for reply in replies if reply not in accepted)
        assert len(accepted) < len(replies)
        # Everything was given back.
        assert (await clients[0].mail(half)).startswith("250 ")
