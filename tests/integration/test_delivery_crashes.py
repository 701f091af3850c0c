"""Processes are killed under load, again and again: nothing is lost and little comes twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from services.common.jetstream import JetStream, NatsSettings, StoreError
from services.common.topology import ACK_WAIT_S, TopologySettings, ensure
from tests.support.booked import booked, booked_id, collect
from tests.support.delivery import submit, until
from tests.support.delivery_process import DeliveryProcess
from tests.support.ledger import Ledger
from tests.support.nats_cluster import NODES, NatsCluster
from tests.support.nats_server import NatsServer
from tests.support.smtp_peer import PeerMail, SmtpPeer

DESTINATIONS = 4
SESSIONS = 5
"""At a time with each destination, so that the number in flight is known."""

ENOUGH = 101
"""Mails that a run accepts at least."""

PAUSE_S = 0.02
RESUME_SECONDS = 10
ENOUGH_SECONDS = 120
DRAIN_SECONDS = 2 * ACK_WAIT_S + 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Flow:
    """Mail that is queued without a pause, and what became of it."""

    def __init__(self, store: JetStream, peer: SmtpPeer) -> None:
        self.ledger = Ledger()
        self._store = store
        self._peer = peer
        self._queuing: asyncio.Task[None] | None = None
        self._is_over = False

    async def __aenter__(self) -> Flow:
        self._queuing = asyncio.create_task(self._queue())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._queuing is not None
        # Not cancelled: before Python 3.12 `asyncio.wait_for`, which publishing uses, loses a
        # cancellation that comes together with the answer.
        self._is_over = True
        await self._queuing

    async def _queue(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
            recipient = f"you@d{number % DESTINATIONS}.test"
            (record,) = booked(self.ledger, [recipient], accepted=False)
            mail_id = booked_id(record.inline_content)
            try:
                await submit(self._store, record)
            except StoreError:
                # Nobody was told 250: it may arrive or not.
                self.ledger.is_unknown(mail_id)
            else:
                self.ledger.was_accepted(mail_id)
            await asyncio.sleep(PAUSE_S)

    async def goes_on(self, seconds: float) -> None:
        """Return when mail arrives that was queued from now on. Raises `TimeoutError`."""
        known = len(self.ledger.hashes)
        async with asyncio.timeout(seconds):
            async with self._peer.arrived:
                await self._peer.arrived.wait_for(
                    lambda: any(_number(mail) >= known for mail in self._peer.mails[-200:])
                )

    async def settled(self) -> None:
        """Return when all that was accepted has arrived. Raises `TimeoutError`."""
        async with asyncio.timeout(DRAIN_SECONDS):
            while True:
                self.ledger.delivered.clear()
                collect(self.ledger, self._peer.mails)
                if not self.ledger.missing():
                    return
                await asyncio.sleep(0.2)


def _number(mail: PeerMail) -> int:
    return int(booked_id(mail.content).rpartition("-")[2])


Fault = Callable[[], Awaitable[object]]


async def under_load(
    folder: Path, urls: list[str], faults: Callable[[DeliveryProcess], list[Fault]]
) -> int:
    """Do one fault after the other while mail flows, and balance the books.

    Returns how many mails were accepted.
    """
    replicas = 1 if len(urls) == 1 else NODES
    store = JetStream(NatsSettings(urls=urls, client_name="test"))
    await store.start(wait_s=10)
    async with SmtpPeer() as peer:
        config = {
            "domains": {
                "relay": {f"d{n}.test": f"smtp:127.0.0.1:{peer.port}" for n in range(DESTINATIONS)}
            },
            "delivery": {"concurrency": {"initial": SESSIONS, "limit": SESSIONS}},
            "nats": {"replicas": replicas},
        }
        process = DeliveryProcess(folder, nats=urls, config=config)
        try:
            await ensure(store, TopologySettings(replicas=replicas), wait_s=30)
            await asyncio.to_thread(process.start)
            async with Flow(store, peer) as flow:
                await flow.goes_on(6 * RESUME_SECONDS)
                for fault in faults(process):
                    await fault()
                    began = time.monotonic()
                    await flow.goes_on(3 * RESUME_SECONDS)
                    assert time.monotonic() - began < 3 * RESUME_SECONDS
                await until(lambda: len(flow.ledger.accepted) >= ENOUGH, seconds=ENOUGH_SECONDS)
            await flow.settled()
        finally:
            await asyncio.to_thread(process.close)
            await store.close()
        in_flight = SESSIONS * DESTINATIONS
        problems = flow.ledger.problems(duplicates_allowed=in_flight * len(faults(process)))
        assert problems == [], process.log()[-3000:]
        return len(flow.ledger.accepted)


def crash_of(process: DeliveryProcess) -> Fault:
    async def crash() -> None:
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)

    return crash


async def test_one_node_and_delivery_are_killed(tmp_path: Path) -> None:
    nats = NatsServer(tmp_path / "nats")
    nats.start()

    async def crash_of_nats() -> None:
        await asyncio.to_thread(nats.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(nats.start)

    try:
        accepted = await under_load(
            tmp_path / "delivery",
            [nats.url],
            lambda process: [crash_of(process), crash_of_nats, crash_of_nats],
        )
    finally:
        nats.close()
    assert accepted >= ENOUGH


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    nodes = NatsCluster(tmp_path / "nats")
    nodes.start()
    yield nodes
    nodes.close()


async def test_leaders_of_three_nodes_and_delivery_are_killed(
    cluster: NatsCluster, tmp_path: Path
) -> None:
    async def crash_of_leader() -> None:
        number = await asyncio.to_thread(cluster.leader, "QUEUE")
        number = 0 if number is None else number
        await asyncio.to_thread(cluster.kill, number)
        await asyncio.sleep(1)
        cluster.start_node(number)

    accepted = await under_load(
        tmp_path / "delivery",
        cluster.urls,
        lambda process: [crash_of(process), crash_of_leader, crash_of_leader],
    )
    assert accepted >= ENOUGH
