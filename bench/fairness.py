"""How long mail for others waits behind a pile of mail that cannot be delivered now.

    python -m bench.fairness [MAILS]

The real delivery process and a real nats-server. The pile comes at once, in batches, which is the
worst case: each of its mails is handed out before the first of those for others. The CPU time of
putting one of them back, in delivery and in nats-server (storing it included), tells more than the
time on the clock, which depends on what else the machine does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.delivery import CONTENT, connected_store, mail, submit
from tests.support.delivery_process import DeliveryProcess
from tests.support.nats_server import NatsServer
from tests.support.programs import extend_search_path
from tests.support.smtp_peer import Silence, SmtpPeer

FREE: Final = "free.test"
OTHERS: Final = 100
BATCH: Final = 100
WAIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    """A pile, and what becomes of attempts at it."""

    name: str
    destinations: int
    octets: int
    peer: Callable[[], SmtpPeer]


def _deferring() -> SmtpPeer:
    return SmtpPeer(rcpt="451 4.3.0 not now")


CASES: Final = (
    Case("one, silent after the dot", 1, 1_000, lambda: SmtpPeer(dot=Silence())),
    Case("one, silent after the dot", 1, 20_000, lambda: SmtpPeer(dot=Silence())),
    Case("forty, 451 to each recipient", 40, 1_000, _deferring),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run took, in seconds."""

    others: float
    """On the clock, from when the last mail was queued until all of those for others are there."""
    put_back: int
    """Mails of the pile that were put back until then, tried or not."""
    delivery: float
    """Of CPU."""
    nats: float
    """Of CPU."""


async def run(nats: NatsServer, folder: Path, mails: int, case: Case) -> Figures:
    """Pile mail up and wait for what goes elsewhere."""
    store = await connected_store(nats.url)
    body = CONTENT + b"x" * case.octets + b"\r\n"
    try:
        async with AsyncExitStack() as stack:
            stuck = [await stack.enter_async_context(case.peer()) for _ in range(case.destinations)]
            free = await stack.enter_async_context(SmtpPeer())
            relay = {f"d{n}.test": f"smtp:127.0.0.1:{peer.port}" for n, peer in enumerate(stuck)}
            relay[FREE] = f"smtp:127.0.0.1:{free.port}"
            process = DeliveryProcess(folder, nats=[nats.url], config={"domains": {"relay": relay}})
            process.start()
            try:
                cpu = _cpu_seconds(process.pid), _cpu_seconds(nats.pid)
                for start in range(0, mails, BATCH):
                    numbers = range(start, min(start + BATCH, mails))
                    pile = [f"you@d{number % case.destinations}.test" for number in numbers]
                    await submit(store, *(mail(each, content=body) for each in pile))
                await submit(store, *(mail(f"you@{FREE}") for _ in range(OTHERS)))
                began = time.monotonic()
                await free.wait_mails(OTHERS, seconds=WAIT_S)
                others = time.monotonic() - began
                handled = [await _count(process, _PARKED, "reason", each) for each in _REASONS]
                handled.append(await _count(process, _TRIED, "outcome", "temporary"))
                return Figures(
                    others,
                    round(sum(handled)),
                    _cpu_seconds(process.pid) - cpu[0],
                    _cpu_seconds(nats.pid) - cpu[1],
                )
            finally:
                process.kill()
    finally:
        await store.close()


_PARKED: Final = "gatepost_delivery_parked_total"
_REASONS: Final = ("busy", "behind", "failing")
_TRIED: Final = "gatepost_delivery_attempts_total"


async def _count(process: DeliveryProcess, name: str, label: str, value: str) -> float:
    return await asyncio.to_thread(process.metric, name, **{label: value})


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    mails = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    extend_search_path()
    sys.stdout.write(
        f"{mails:,} mails that cannot be delivered now, {OTHERS} for another destination\n"
        f"{'destinations':>30} {'octets':>7} {'others after':>13}"
        f" {'delivery':>12} {'nats-server':>12}\n"
    )
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            nats = NatsServer(Path(folder) / "nats")
            nats.start()
            try:
                figures = asyncio.run(run(nats, Path(folder) / "delivery", mails, case))
            finally:
                nats.close()
        each = max(figures.put_back, 1)
        delivery, server = (cpu / each * 1e6 for cpu in (figures.delivery, figures.nats))
        sys.stdout.write(
            f"{case.name:>30} {case.octets:7} {figures.others:11.1f} s"
            f" {delivery:6.0f} µs/mail {server:6.0f} µs/mail\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
