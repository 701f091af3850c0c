"""What 200,000 mails that wait cost: in pages, metrics, memory and the speed of fresh mail.

    python -m bench.deferred [RECORDS]

A real nats-server with the memory limit that the chart gives it for so many (GOMEMLIMIT), and the
real delivery process. First with all of them waiting for an hour; then the server is killed while
all of them are past due, which is what an outage of an hour leaves.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from gatepost.queue.v1.record_pb2 import ContentReference, QueuedMessage
from services.common.jetstream import JetStream, NatsSettings
from services.common.queue.record import deferred
from services.common.queue.subjects import DEFERRED_COUNTER, DELIVERY_CONSUMER, QUEUE_STREAM
from services.common.rpc.client import channel
from services.common.rpc.tokens import TokenFile
from services.delivery import queue_gauges
from tests.support.delivery import connected_store, mail, submit
from tests.support.delivery_process import DeliveryProcess
from tests.support.nats_server import NatsServer
from tests.support.programs import extend_search_path
from tests.support.smtp_peer import SmtpPeer

BATCH: Final = 500
DESTINATIONS: Final = 100
FRESH: Final = 500
ROUNDS: Final = 4
IDLE_S: Final = 5.0
ASKED: Final = 30
BASE_MIB: Final = 512
KIB_EACH: Final = 4
"""What helm/gatepost/templates/_nats.tpl gives the server."""

WAIT_S: Final = 600.0


def _records(count: int) -> list[QueuedMessage]:
    made = []
    for number in range(count):
        record = mail(f"you@d{number % DESTINATIONS}.test")
        record.content_reference.CopyFrom(
            ContentReference(content_id=record.message_id, chunks=1, sha256=bytes(32))
        )
        record.attempts = 1
        record.wait_reason = "mx.example.net[192.0.2.1]:25: 451 4.3.0 Try again later, please"
        made.append(record)
    return made


async def _wait_all(store: JetStream, count: int, due: timedelta) -> None:
    """Put so many records into the queue, due after this."""
    when = datetime.now(UTC) + due
    for start in range(0, count, BATCH):
        records = _records(min(BATCH, count - start))
        await store.publish_batch([deferred(record, when) for record in records], timeout_s=30)


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


async def _fresh(
    store: JetStream, nats: NatsServer, process: DeliveryProcess, peer: SmtpPeer
) -> float:
    """CPU of delivery and nats-server for each fresh mail in µs: the best of some rounds.

    What both use when nobody sends anything (the sweeper looks through what waits) is taken off: it
    goes by the clock, and on a busy machine there is much of that to a mail.
    """

    def used() -> float:
        return cpu_seconds(process.pid) + cpu_seconds(nats.pid)

    cpu, began = used(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    idle = (used() - cpu) / (time.monotonic() - began)
    rounds = []
    for _ in range(ROUNDS):
        before, cpu, began = len(peer.mails), used(), time.monotonic()
        for _ in range(FRESH // 20):
            await submit(store, *(mail("you@free.test") for _ in range(20)))
        await peer.wait_mails(before + FRESH, seconds=WAIT_S)
        rounds.append(used() - cpu - idle * (time.monotonic() - began))
    return min(rounds) / FRESH * 1e6


async def _state(store: JetStream, consumer: str) -> int:
    state = await store.consumer_state(QUEUE_STREAM, consumer)
    return state.pending + state.ack_pending if state is not None else 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no VmHWM")


def say(what: str, figure: str) -> None:
    """A line of the table."""
    sys.stdout.write(f"{what:<58} {figure:>20}\n")
    sys.stdout.flush()


async def run(folder: Path, count: int) -> None:
    """Measure and print."""
    limit_mib = BASE_MIB + count * KIB_EACH // 1024
    os.environ["GOMEMLIMIT"] = f"{limit_mib * 9 // 10}MiB"
    nats = NatsServer(folder / "nats", storage="4GB")
    nats.start()
    try:
        store = await connected_store(nats.url)
        async with SmtpPeer() as free, SmtpPeer(rcpt="451 4.3.0 not now") as busy:
            relay = {f"d{n}.test": f"smtp:127.0.0.1:{busy.port}" for n in range(DESTINATIONS)}
            relay["free.test"] = f"smtp:127.0.0.1:{free.port}"
            config = {"domains": {"relay": relay}, "delivery": {"retry": {"interval": "1h"}}}
            with DeliveryProcess(folder / "delivery", nats=[nats.url], config=config) as process:
                await _fresh(store, nats, process, free)
                empty = await _fresh(store, nats, process, free)
                await _wait_all(store, count, timedelta(hours=1))
                say("records that wait", f"{await _state(store, DEFERRED_COUNTER):,}")
                await _looks(store, nats, process)
                full = await _fresh(store, nats, process, free)
                say("CPU for a fresh mail, queue empty", f"{empty:.0f} µs")
                say("CPU for a fresh mail, so many waiting", f"{full:.0f} µs")
                say("  more than with an empty queue", f"{full / empty - 1:+.0%}")
                say("nats-server, most memory so far", f"{peak_mib(nats.pid):.0f} MiB")
            await store.close()
            await _past_due(nats, folder, config, free, count, limit_mib)
    finally:
        nats.close()


async def _looks(store: JetStream, nats: NatsServer, process: DeliveryProcess) -> None:
    """What operators and Prometheus ask."""
    opened = channel(
        f"127.0.0.1:{process.rpc_port}", token_source=TokenFile(process.tokens / "viewer.token")
    )
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
        ("all metrics of the queue", lambda: queue_gauges.sample(store)),
    ):
        clock, cpu = await _milliseconds(work, (nats.pid, process.pid))
        say(f"{name}, median and CPU", f"{clock:.0f} ms, {cpu:.0f} ms")
    await opened.close()


async def _past_due(
    nats: NatsServer,
    folder: Path,
    config: Mapping[str, object],
    free: SmtpPeer,
    count: int,
    limit_mib: int,
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
    with DeliveryProcess(folder / "again", nats=[nats.url], config=config) as process:
        store = JetStream(_settings(nats))
        await store.start(wait_s=30)
        before = len(free.mails)
        asked = time.monotonic()
        await submit(store, mail("you@free.test"))
        await free.wait_mails(before + 1, seconds=WAIT_S)
        say("fresh mail, after", f"{time.monotonic() - asked:.1f} s")
        worst = put_back = 0.0
        while await _state(store, DEFERRED_COUNTER) and time.monotonic() - began < WAIT_S:
            before, asked = len(free.mails), time.monotonic()
            await submit(store, mail("you@free.test"))
            await free.wait_mails(before + 1, seconds=WAIT_S)
            worst = max(worst, time.monotonic() - asked)
            ready = await _state(store, DELIVERY_CONSUMER)
            put_back = await asyncio.to_thread(
                process.metric, "gatepost_delivery_parked_total", reason="behind"
            )
            if put_back >= count / 2 and not ready:
                break
            await asyncio.sleep(2)
        say("fresh mail while they fire, the slowest after", f"{worst:.1f} s")
        say("retries put back to make way", f"{put_back:,.0f}")
        say("nats-server, most memory", f"{peak_mib(nats.pid):.0f} of {limit_mib} MiB")
        found = await _state(store, DEFERRED_COUNTER) + await _state(store, DELIVERY_CONSUMER)
        say("records in the queue at the end", f"{found:,}")
        await store.close()


def _settings(nats: NatsServer) -> NatsSettings:
    return NatsSettings(urls=[nats.url], client_name="bench")


def main() -> None:
    """Measure with so many records."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    extend_search_path()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), count))


if __name__ == "__main__":
    main()
