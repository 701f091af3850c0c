"""How long mail for others waits behind a pile of mail for one destination that is stuck.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.delivery import CONTENT, connected_store, mail, submit
from tests.support.delivery_process import DeliveryProcess
from tests.support.nats_server import NatsServer
from tests.support.programs import extend_search_path
from tests.support.smtp_peer import Script, Silence, SmtpPeer

STUCK, FREE = "stuck.test", "free.test"
OTHERS: Final = 100
BATCH: Final = 100
WAIT_S: Final = 120.0

CASES: Final[tuple[tuple[str, Script, int], ...]] = (
    ("silent after the dot", Silence(), 1_000),
    ("silent after the dot", Silence(), 20_000),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run took, in seconds."""

    others: float
    """On the clock, from when the last mail was queued until all of those for others are there."""
    put_back: int
    """Mails that were put back until then."""
    delivery: float
    """Of CPU."""
    nats: float
    """Of CPU."""


async def run(nats: NatsServer, folder: Path, mails: int, *, dot: Script, octets: int) -> Figures:
    """Pile mail up, let delivery begin, and wait for what goes elsewhere."""
    store = await connected_store(nats.url)
    body = CONTENT + b"x" * octets + b"\r\n"
    try:
        async with SmtpPeer(dot=dot) as stuck, SmtpPeer() as free:
            relay = {
                STUCK: f"smtp:127.0.0.1:{stuck.port}",
                FREE: f"smtp:127.0.0.1:{free.port}",
            }
            process = DeliveryProcess(folder, nats=[nats.url], config={"domains": {"relay": relay}})
            process.start()
            try:
                cpu = _cpu_seconds(process.pid), _cpu_seconds(nats.pid)
                for start in range(0, mails, BATCH):
                    count = min(BATCH, mails - start)
                    await submit(store, *(mail(f"you@{STUCK}", content=body) for _ in range(count)))
                await submit(store, *(mail(f"you@{FREE}") for _ in range(OTHERS)))
                began = time.monotonic()
                await free.wait_mails(OTHERS, seconds=WAIT_S)
                return Figures(
                    time.monotonic() - began,
                    round(await asyncio.to_thread(process.metric, _PARKED)),
                    _cpu_seconds(process.pid) - cpu[0],
                    _cpu_seconds(nats.pid) - cpu[1],
                )
            finally:
                process.kill()
    finally:
        await store.close()


_PARKED: Final = "gatepost_delivery_parked_total"


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    mails = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    extend_search_path()
    sys.stdout.write(
        f"{mails:,} mails for a destination that is stuck, {OTHERS} for another\n"
        f"{'stuck':>22} {'octets':>7} {'others after':>13} {'delivery':>12} {'nats-server':>12}\n"
    )
    for name, dot, octets in CASES:
        with tempfile.TemporaryDirectory() as folder:
            nats = NatsServer(Path(folder) / "nats")
            nats.start()
            try:
                figures = asyncio.run(
                    run(nats, Path(folder) / "delivery", mails, dot=dot, octets=octets)
                )
            finally:
                nats.close()
        each = max(figures.put_back, 1)
        delivery, server = (cpu / each * 1e6 for cpu in (figures.delivery, figures.nats))
        sys.stdout.write(
            f"{name:>22} {octets:7} {figures.others:11.1f} s"
            f" {delivery:6.0f} µs/mail {server:5.0f} µs/mail\n"
        )


if __name__ == "__main__":
    main()
