"""How many mails a second a contender takes and delivers, and what a mail costs it.

smtp-source sends with 20 sessions, smtp-sink takes what is delivered. A run lasts until the last
mail is with the sink, so that what is left in a queue counts.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contender import Contender, Name
from bench.mail import RECIPIENT, SENDER
from bench.names import LOOPBACK, SENDER_HOST
from bench.processes import cpu_seconds, machine_cpu_seconds, memory_octets
from bench.sink import Sink
from tests.support.programs import program

SESSIONS: Final = 20
_RUN_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent."""

    title: str
    octets: int
    reuse: bool
    """Many mails over each connection, or one."""
    count: int
    """Mails of one run."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run showed."""

    contender: Name
    accepted_per_second: float
    delivered_per_second: float
    cpu_ms: float
    """Of all processes of the contender, for one mail."""
    member_cpu_ms: dict[str, float]
    """What of it was that of which process."""
    memory: int
    """Octets, at the end of the run."""
    others: float
    """The part of the machine's time that went to what is none of this comparison."""


def run(contender: Contender, sink: Sink, case: Case, mail: Path, *, count: int = 0) -> Run:
    """Send, and wait for the delivery of all. Raises `RuntimeError`, `TimeoutError`."""
    count = count or case.count
    wanted = sink.count + count
    cpu, members = cpu_seconds(contender.roots()), _members(contender)
    ours, machine = cpu_seconds([os.getpid()]), machine_cpu_seconds()
    began = time.monotonic()
    _send(contender.port, case, mail, count)
    accepted = time.monotonic() - began
    delivered = sink.wait(wanted, seconds=_RUN_SECONDS) - began
    ours, machine = cpu_seconds([os.getpid()]) - ours, machine_cpu_seconds() - machine
    capacity = (time.monotonic() - began) * (os.cpu_count() or 1)
    return Run(
        contender=contender.name,
        accepted_per_second=count / accepted,
        delivered_per_second=count / delivered,
        cpu_ms=(cpu_seconds(contender.roots()) - cpu) / count * 1000,
        member_cpu_ms={
            name: (seconds - members[name]) / count * 1000
            for name, seconds in _members(contender).items()
        },
        memory=memory_octets(contender.roots()),
        others=max(machine - ours, 0.0) / capacity,
    )


def _members(contender: Contender) -> dict[str, float]:
    return {name: cpu_seconds([pid]) for name, pid in contender.members().items()}


def send_one(port: int, mail: Path) -> None:
    """Send a single mail."""
    _send(port, Case("", 0, False, 1), mail, 1)


def _send(port: int, case: Case, mail: Path, count: int) -> None:
    sessions = min(SESSIONS, count)
    argv = [program("smtp-source"), "-s", str(sessions), "-m", str(count)]
    argv += ["-d"] if case.reuse else []
    argv += ["-M", SENDER_HOST, "-f", SENDER, "-t", RECIPIENT, "-F", str(mail)]
    done = subprocess.run(
        [*argv, f"{LOOPBACK}:{port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"smtp-source: {done.stderr.decode('utf-8', 'replace').strip()}")
