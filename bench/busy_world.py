"""How fresh mail fares while everything else is answered "not now", and whether all of it arrives.

    python -m bench.busy_world [MAILS [MAILS_A_SECOND]]

The real delivery process and a real nats-server. So many mails for forty destinations are queued,
each of which answers 451 to every recipient; a mail for a healthy destination is queued twice a
second all the while: as the pile comes in, while it waits, and while all of it is due again. Then
the destinations take mail, and the ledger is compared once the queue is empty.

The pile comes in at the given pace; 0: as fast as the server stores it, which is many times what
this machine's ingress accepts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.jetstream import JetStream
from services.common.queue.subjects import DEFERRED_COUNTER, DELIVERY_CONSUMER, QUEUE_STREAM
from tests.support.booked import booked, booked_id, collect, submit_all
from tests.support.delivery import connected_store, submit
from tests.support.delivery_process import DeliveryProcess
from tests.support.ledger import Ledger
from tests.support.nats_server import NatsServer
from tests.support.programs import extend_search_path
from tests.support.smtp_peer import SmtpPeer

DESTINATIONS: Final = 40
FREE: Final = "you@free.test"
EVERY_S: Final = 0.5
INTERVAL_S: Final = 60
"""Of retries: all of the pile is due again within so long."""

BUSY_ROUNDS: Final = 2
DRAIN_S: Final = 1200.0
"""What was put back when everything was busy comes back within a quarter of an hour."""

BATCH: Final = 100


@dataclass(slots=True)
class Fresh:
    """Mails for the healthy destination, and how long each of them took."""

    store: JetStream
    ledger: Ledger
    peer: SmtpPeer
    queued_at: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """Queue one now and then while the block runs."""
        tasks = [asyncio.create_task(self._queue()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _queue(self) -> None:
        while True:
            (record,) = booked(self.ledger, [FREE])
            self.queued_at[booked_id(record.inline_content)] = time.monotonic()
            await submit(self.store, record)
            await asyncio.sleep(EVERY_S)

    async def _watch(self) -> None:
        seen = 0
        while True:
            async with self.peer.arrived:
                await self.peer.arrived.wait()
            for mail in self.peer.mails[seen:]:
                mail_id = booked_id(mail.content)
                self.took.setdefault(mail_id, time.monotonic() - self.queued_at[mail_id])
            seen = len(self.peer.mails)

    def told(self, what: str, since: float) -> None:
        """Print the times of those that were queued since then."""
        now = time.monotonic()
        took = [
            self.took.get(mail_id, now - at)
            for mail_id, at in self.queued_at.items()
            if at >= since
        ]
        took.sort()
        _say(
            f"fresh mail {what}",
            f"of {len(took)}, median {statistics.median(took):.2f},"
            f" 95 % {took[len(took) * 95 // 100]:.2f}, longest {took[-1]:.2f} s",
        )


async def run(folder: Path, mails: int, pace: float) -> list[str]:
    """Measure and print. Returns what must not be."""
    nats = NatsServer(folder / "nats", storage="4GB")
    nats.start()
    try:
        store = await connected_store(nats.url)
        async with AsyncExitStack() as stack:
            peers = [
                await stack.enter_async_context(SmtpPeer(rcpt="451 4.3.0 not now"))
                for _ in range(DESTINATIONS)
            ]
            free = await stack.enter_async_context(SmtpPeer())
            relay = {f"d{n}.test": f"smtp:127.0.0.1:{peer.port}" for n, peer in enumerate(peers)}
            relay["free.test"] = f"smtp:127.0.0.1:{free.port}"
            retry = {"interval": f"{INTERVAL_S}s", "max_retries": 10_000}
            config = {"domains": {"relay": relay}, "delivery": {"retry": retry}}
            with DeliveryProcess(folder / "delivery", nats=[nats.url], config=config):
                return await _measure(store, peers, free, mails, pace)
    finally:
        nats.close()


async def _measure(
    store: JetStream, peers: Sequence[SmtpPeer], free: SmtpPeer, mails: int, pace: float
) -> list[str]:
    ledger = Ledger()
    fresh = Fresh(store, ledger, free)
    async with fresh.coming():
        began = time.monotonic()
        await _pile_up(store, ledger, [f"you@d{n % len(peers)}.test" for n in range(mails)], pace)
        _say("mails queued", f"{mails:,} in {time.monotonic() - began:.0f} s")
        await _until_at_most(mails // 100, _ready, store)
        _say("all put back after", f"{time.monotonic() - began:.0f} s")
        fresh.told("while the pile comes in and is put back", began)
        began = time.monotonic()
        await asyncio.sleep(BUSY_ROUNDS * INTERVAL_S)
        fresh.told("while they are due again and again", began)
        began = time.monotonic()
        for peer in peers:
            peer.script(rcpt="250 2.1.5 ok")
        await _until_at_most(2, _left, store)
        _say("all taken after", f"{time.monotonic() - began:.0f} s")
        fresh.told("while they are taken", began)
    await _until_at_most(0, _left, store)
    for peer in (*peers, free):
        collect(ledger, peer.mails)
    _say("accepted, lost, duplicates", _books(ledger))
    _say("load average at the end", " ".join(f"{load:.1f}" for load in os.getloadavg()))
    await store.close()
    return ledger.problems(duplicates_allowed=0)


async def _pile_up(
    store: JetStream, ledger: Ledger, recipients: Sequence[str], pace: float
) -> None:
    began = time.monotonic()
    for start in range(0, len(recipients), BATCH):
        if pace:
            await asyncio.sleep(max(0.0, began + start / pace - time.monotonic()))
        await submit_all(store, booked(ledger, recipients[start : start + BATCH]))


def _books(ledger: Ledger) -> str:
    return f"{len(ledger.accepted):,}, {len(ledger.missing())}, {ledger.duplicates}"


async def _until_at_most(
    count: int, ask: Callable[[JetStream], Awaitable[int]], store: JetStream
) -> None:
    deadline = time.monotonic() + DRAIN_S
    while True:
        if await ask(store) <= count or time.monotonic() > deadline:
            return
        await asyncio.sleep(0.2)


async def _ready(store: JetStream) -> int:
    return await _state(store, DELIVERY_CONSUMER)


async def _left(store: JetStream) -> int:
    return await _ready(store) + await _state(store, DEFERRED_COUNTER)


async def _state(store: JetStream, consumer: str) -> int:
    state = await store.consumer_state(QUEUE_STREAM, consumer)
    return state.pending + state.ack_pending if state is not None else 0


def _say(what: str, figure: str) -> None:
    sys.stdout.write(f"{what:<52} {figure:>54}\n")
    sys.stdout.flush()


def main() -> int:
    """Measure with so many mails. 1: the books do not balance."""
    mails = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    pace = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    extend_search_path()
    with tempfile.TemporaryDirectory() as folder:
        problems = asyncio.run(run(Path(folder), mails, pace))
    sys.stdout.writelines(f"{problem}\n" for problem in problems[:20])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
