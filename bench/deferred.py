"""What 200,000 mails that wait cost: in pages, metrics, memory and the speed of fresh mail.

    python -m bench.deferred [RECORDS]

Two real nats-servers, with the memory limit that the chart gives one for so many (GOMEMLIMIT), and
a real delivery process at each. At one of them nothing waits, at the other all of them do, for an
hour; both get fresh mail in turns, so that what else the machine does is done to both. Then the
full one is killed and comes back when all of them are past due, which is what an outage of an hour
leaves.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from gatepost.queue.v1.record_pb2 import ContentReference, QueuedMessage
from services.common.jetstream import JetStream, NatsSettings
from services.common.queue.subjects import DEFERRED_COUNTER, DELIVERY_CONSUMER, QUEUE_STREAM
from services.common.rpc.client import channel
from services.common.rpc.tokens import TokenFile
from services.delivery import queue_gauges
from tests.support.delivery import connected_store, mail, submit
from tests.support.delivery_process import DeliveryProcess
from tests.support.nats_server import NatsServer
from tests.support.programs import extend_search_path
from tests.support.smtp_peer import SmtpPeer
from tests.support.waiting import have_wait, memory_environment, memory_mib, peak_mib

DESTINATIONS: Final = 100
FRESH: Final = 500
ROUNDS: Final = 12
IDLE_S: Final = 10.0
ASKED: Final = 30
FIRING_S: Final = 60.0
"""For how long fresh mail is watched while the past due ones fire."""

WAIT_S: Final = 600.0


@dataclass(slots=True)
class Side:
    """A nats-server and the delivery process at it."""

    nats: NatsServer
    store: JetStream
    process: DeliveryProcess
    idle: float = 0.0
    """Processors that both keep busy when nobody sends anything."""

    def used(self) -> float:
        """CPU seconds of both so far."""
        return cpu_seconds(self.process.pid) + cpu_seconds(self.nats.pid)

    async def measure_idle(self) -> None:
        """Learn what goes by the clock: the sweeper looks through what waits."""
        cpu, began = self.used(), time.monotonic()
        await asyncio.sleep(IDLE_S)
        self.idle = (self.used() - cpu) / (time.monotonic() - began)

    async def fresh(self, peer: SmtpPeer) -> float:
        """CPU of both for each of some fresh mails in µs, beyond what they use when idle."""
        before, cpu, began = len(peer.mails), self.used(), time.monotonic()
        for _ in range(FRESH // 20):
            await submit(self.store, *(mail("you@free.test") for _ in range(20)))
        await peer.wait_mails(before + FRESH, seconds=WAIT_S)
        await asyncio.sleep(0.1)  # the last ones are acknowledged
        used = self.used() - cpu - self.idle * (time.monotonic() - began)
        return used / FRESH * 1e6


def _records(count: int) -> Iterator[QueuedMessage]:
    for number in range(count):
        record = mail(f"you@d{number % DESTINATIONS}.test")
        record.content_reference.CopyFrom(
            ContentReference(content_id=record.message_id, chunks=1, sha256=bytes(32))
        )
        record.attempts = 1
        record.wait_reason = "mx.example.net[192.0.2.1]:25: 451 4.3.0 Try again later, please"
        yield record


async def _wait_all(store: JetStream, count: int, due: timedelta) -> None:
    """Put so many records into the queue, due after this."""
    when = datetime.now(UTC) + due
    await have_wait(store, _records(count), when)


async def _milliseconds(
    work: Callable[[], Awaitable[object]], pids: Sequence[int]
) -> tuple[float, float]:
    """The median on the clock, and the CPU time of these processes for each."""
    took, cpu = [], sum(map(cpu_seconds, pids))
    for _ in range(ASKED):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    used = sum(map(cpu_seconds, pids)) - cpu
    return statistics.median(took) * 1000, used / ASKED * 1000


async def _state(store: JetStream, consumer: str) -> int:
    state = await store.consumer_state(QUEUE_STREAM, consumer)
    return state.pending + state.ack_pending if state is not None else 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def say(what: str, figure: str) -> None:
    """A line of the table."""
    sys.stdout.write(f"{what:<58} {figure:>20}\n")
    sys.stdout.flush()


async def run(folder: Path, count: int) -> None:
    """Measure and print."""
    async with SmtpPeer() as free, SmtpPeer(rcpt="451 4.3.0 not now") as busy:
        relay = {f"d{n}.test": f"smtp:127.0.0.1:{busy.port}" for n in range(DESTINATIONS)}
        relay["free.test"] = f"smtp:127.0.0.1:{free.port}"
        config = {"domains": {"relay": relay}, "delivery": {"retry": {"interval": "1h"}}}
        async with AsyncExitStack() as stack:
            memory = memory_environment(count)
            full_nats = await _started(stack, folder / "full", memory)
            async with AsyncExitStack() as both:
                empty = await _opened(both, await _started(both, folder / "empty", memory), config)
                full = await _opened(both, full_nats, config)
                await _wait_all(full.store, count, timedelta(hours=1))
                say("records that wait", f"{await _state(full.store, DEFERRED_COUNTER):,}")
                await _looks(full)
                await _compare(empty, full, free)
            await _past_due(full_nats, folder / "again", config, free, count)
            peak = f"{peak_mib(full_nats.pid):.0f} of {memory_mib(count)} MiB"
            say("nats-server, most memory", peak)
            say("load average", " ".join(f"{load:.1f}" for load in os.getloadavg()))


async def _started(stack: AsyncExitStack, folder: Path, memory: Mapping[str, str]) -> NatsServer:
    nats = NatsServer(folder, storage="4GB", environment=memory)
    stack.callback(nats.close)
    nats.start()
    return nats


async def _opened(stack: AsyncExitStack, nats: NatsServer, config: Mapping[str, Any]) -> Side:
    store = await connected_store(nats.url)
    stack.push_async_callback(store.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return Side(
        nats, store, stack.enter_context(DeliveryProcess(folder, nats=[nats.url], config=config))
    )


async def _compare(empty: Side, full: Side, free: SmtpPeer) -> None:
    """What fresh mail costs at both, in turns."""
    for side in (empty, full):
        await side.fresh(free)
        await side.measure_idle()
    rounds = []
    for number in range(ROUNDS):
        first, second = (empty, full) if number % 2 else (full, empty)
        pair = await first.fresh(free), await second.fresh(free)
        rounds.append(pair if number % 2 else (pair[1], pair[0]))
    for what, cpu in zip(("nothing waits", "so many wait"), zip(*rounds, strict=True), strict=True):
        say(f"CPU for a fresh mail while {what}, median", f"{statistics.median(cpu):.0f} µs")
    more = statistics.median(with_all / without - 1 for without, with_all in rounds)
    say("  more with them, median of the pairs", f"{more:+.0%}")
    say("CPU while nobody sends anything", f"{empty.idle:.1%} and {full.idle:.1%}")


async def _looks(full: Side) -> None:
    """What operators and Prometheus ask."""
    token_source = TokenFile(full.process.tokens / "viewer.token")
    opened = channel(f"127.0.0.1:{full.process.rpc_port}", token_source=token_source)
    stub = QueueServiceStub(opened)
    token = ""

    async def page() -> None:
        nonlocal token
        request = pb.ListMessagesRequest(page_token=token, state=pb.QUEUE_STATE_DEFERRED)
        token = (await stub.ListMessages(request)).next_page_token

    async def of_destination() -> None:
        request = pb.ListMessagesRequest(destination="d7.test", page_size=100)
        await stub.ListMessages(request)

    for name, work in (
        ("a page of 100 records", page),
        ("a page of the records of one destination", of_destination),
        ("all metrics of the queue", lambda: queue_gauges.sample(full.store)),
    ):
        clock, cpu = await _milliseconds(work, (full.nats.pid, full.process.pid))
        say(f"{name}, median and CPU", f"{clock:.0f} ms, {cpu:.0f} ms")
    await opened.close()


async def _past_due(
    nats: NatsServer, folder: Path, config: Mapping[str, Any], free: SmtpPeer, count: int
) -> None:
    """All of them come due while the server is away."""
    store = await connected_store(nats.url)
    soon = timedelta(seconds=max(20, count // 2500))
    await _wait_all(store, count, soon)
    nats.kill()
    await store.close()
    await asyncio.sleep(soon.total_seconds())
    began = time.monotonic()
    nats.start()
    say("restart with all of them past due, until it answers", f"{time.monotonic() - began:.1f} s")
    with DeliveryProcess(folder, nats=[nats.url], config=config) as process:
        store = JetStream(NatsSettings(urls=[nats.url], client_name="bench"))
        await store.start(wait_s=30)
        say("  until delivery is ready", f"{time.monotonic() - began:.1f} s")
        took = [await _one(store, free)]
        say("  until a fresh mail is delivered", f"{time.monotonic() - began:.1f} s")
        watched = time.monotonic()
        while time.monotonic() - watched < FIRING_S:
            await asyncio.sleep(1)
            took.append(await _one(store, free))
        say(
            "fresh mail while they fire, median and slowest",
            f"{statistics.median(took):.1f} s, {max(took):.1f} s",
        )
        put_back = await asyncio.to_thread(
            process.metric, "gatepost_delivery_parked_total", reason="behind"
        )
        say(f"retries put back to make way in {FIRING_S:.0f} s", f"{put_back:,.0f}")
    found = await _state(store, DEFERRED_COUNTER) + await _state(store, DELIVERY_CONSUMER)
    say("records in the queue at the end, those on their way twice", f"{found:,}")
    await store.close()


async def _one(store: JetStream, free: SmtpPeer) -> float:
    """How long a fresh mail takes, from the moment that it is queued."""
    before, asked = len(free.mails), time.monotonic()
    await submit(store, mail("you@free.test"))
    await free.wait_mails(before + 1, seconds=WAIT_S)
    return time.monotonic() - asked


def main() -> None:
    """Measure with so many records."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    extend_search_path()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), count))


if __name__ == "__main__":
    main()
