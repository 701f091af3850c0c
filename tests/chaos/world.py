"""One `gatepost up` with the world around it: DNS, receiving servers, senders, and the ledger.

A round is one fault under load: `begin`, then `load` for as long as the fault lasts, then `end`,
which lets everything be delivered and compares the books.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from services.common.failpoint import VARIABLE, Failpoint
from tests.chaos.clocks import Clocks
from tests.chaos.receiver import REFUSED, Mood, Receiver
from tests.support.dns_server import DnsServer
from tests.support.installation import SERVICES, Installation
from tests.support.ledger import Ledger
from tests.support.load import Load, Parcel
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer
from tests.support.waiting import memory_environment

PROCESSES = (*SERVICES, "nats")
SENDER_DOMAIN = "sender.example"
UNWANTED_DOMAIN = "unwanted.example"
DOMAINS = ("one.example", "two.example", "three.example")
HELO = f"mail.{SENDER_DOMAIN}"
IN_FLIGHT = 60
"""Mails that the workers of delivery can have in hand at the next hops when one is killed."""

DRAIN_S = 400.0
"""Mail that waited for its turn at a slow place comes back within five minutes."""

DRAINED_PER_SECOND = 100
"""Of a pile that came due together, on a slow machine."""

RECORDS = {
    (SENDER_DOMAIN, "MX"): [f"10 {HELO}"],
    (SENDER_DOMAIN, "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
    (UNWANTED_DOMAIN, "MX"): [f"10 {HELO}"],
    (HELO, "A"): ["127.0.0.1"],
}

_NOTHING_LISTED = "the queue is empty"
_FAILPOINT = re.compile("^failpoint ([a-z-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """What a round came to."""

    fault: str
    kills: int
    accepted: int
    unknown: int
    delivered: int
    notified: int
    duplicated: int
    lost: int
    note: str
    problems: tuple[str, ...]


@dataclass(slots=True)
class World:
    """Everything. A context manager."""

    random: Random
    sessions: int = 6
    nodes: int = 1
    storage: str = "1GB"
    ledger: Ledger = field(default_factory=Ledger)
    kills: int = 0
    round: str = ""
    notes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    folder: tempfile.TemporaryDirectory[str] = field(init=False)
    dns: DnsServer = field(init=False)
    receiver: Receiver = field(init=False)
    cluster: NatsCluster | None = None
    has_clocks: bool = False
    """The clocks of the services can be set."""
    clocks: Clocks = field(init=False)
    waiting: int = 0
    """If not 0, a nats-server of its own, with the memory that the chart gives for so many."""
    server: NatsServer | None = None
    planted: int = 0
    """Mails of the round that did not come through ingress."""
    installation: Installation = field(init=False)

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="gatepost-chaos-")
        path = Path(self.folder.name)
        self.dns = DnsServer(RECORDS).__enter__()
        self.receiver = Receiver(self.ledger, (*DOMAINS, SENDER_DOMAIN))
        if self.nodes > 1:
            self.cluster = NatsCluster(path / "nats")
        if self.waiting:
            memory = memory_environment(self.waiting)
            self.server = NatsServer(path / "nats", environment=memory)
        (path / "gatepost").mkdir()
        self.installation = Installation(path / "gatepost", self.config())
        self.receiver.__enter__()
        self.arm({})
        self.clocks = Clocks(path / "clocks")
        environment = {VARIABLE: f"@{self._armed_file}"}
        if self.has_clocks:
            environment |= self.clocks.environment
        try:
            if self.cluster is not None:
                self.cluster.start()
            if self.server is not None:
                self.server.start()
            self.installation.start(environment)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.installation.close()
        if self.cluster is not None:
            self.cluster.close()
        if self.server is not None:
            self.server.close()
        self.receiver.__exit__(kind, error, trace)
        self.dns.__exit__(kind, error, trace)
        self.folder.cleanup()

    def config(self) -> dict[str, Any]:
        """The configuration: retries every second or so, and no end of them; short memories."""
        nats: dict[str, Any] = {"storage_limit": self.storage, "events_max_size": "8MB"}
        if self.cluster is not None:
            nats |= {"urls": self.cluster.urls, "embedded": False, "replicas": self.nodes}
        if self.server is not None:
            nats |= {"urls": [self.server.url], "embedded": False}
        retry = {"interval": "1s", "max_retries": 10000, "delay_notice_after": "0"}
        if self.has_clocks:
            retry["max_age"] = "30m"
        return {
            "dns": {"servers": [self.dns.address]},
            "nats": nats,
            "domains": {"relay": self.receiver.relay},
            "policy": {"deny": [UNWANTED_DOMAIN], "check_timeout": "5s"},
            "smtp": {"limits": {"connections_per_address": 1000}},
            "delivery": {
                "retry": retry,
                "backoff": {"initial": "1s", "limit": "10s"},
            },
        }

    # --- a round --------------------------------------------------------------------------------

    def begin(self, name: str) -> None:
        """Open new books."""
        self.ledger = self.receiver.ledger = Ledger()
        self.kills, self.planted, self.round = -len(self.struck()), 0, name
        self.notes, self.complaints = [], []

    @contextmanager
    def load(self, *, pause_s: float = 0.0, seconds: float = 3600.0) -> Iterator[None]:
        """Send from several sessions while the block runs."""
        load = Load(
            port=self.installation.ports["mx"],
            ledger=self.ledger,
            parcel=self.parcel,
            helo=HELO,
            wanted=10**9,
            sessions=self.sessions,
            seconds=seconds,
            pause_s=pause_s,
            name=self.round.replace(" ", "-"),
        )
        sending = threading.Thread(target=load.run)
        sending.start()
        try:
            yield
        finally:
            load.stop()
            sending.join()

    def parcel(self, number: int) -> Parcel:
        """A mail: mostly small, for one or two domains; a few large, refused there, or unwanted."""
        choice = Random(number * 7919)
        recipient = f"user{number % 50}@{choice.choice(DOMAINS)}"
        kind = choice.random()
        if kind < 0.03:
            return Parcel(f"mallory@{UNWANTED_DOMAIN}", (recipient,), unwanted=True)
        sender = f"alice@{SENDER_DOMAIN}"
        if kind < 0.06:
            return Parcel(sender, (f"{REFUSED}@{choice.choice(DOMAINS)}",))
        if kind < 0.09:
            return Parcel(sender, (recipient,), octets=400_000)
        if kind < 0.15:
            return Parcel(sender, tuple(f"user{number % 50}@{domain}" for domain in DOMAINS))
        return Parcel(sender, (recipient,))

    def end(self, *, duplicates_allowed: int = 0) -> Row:
        """Let all be delivered, and compare. Each kill allows for what was in flight."""
        self.receiver.set_all(Mood.KIND)
        for service in SERVICES:
            self.installation.wait_ready(service, seconds=DRAIN_S)
        self.drain()
        self.kills += len(self.struck())
        allowed = duplicates_allowed + self.kills * IN_FLIGHT
        problems = [*self.complaints, *self.ledger.problems(duplicates_allowed=allowed)]
        problems += [
            f"given up, though nobody refused it: {each}"
            for each in sorted(self.ledger.notified)
            if not each[1].startswith(f"{REFUSED}@")
        ]
        if not self.ledger.accepted:
            problems.append("no mail was accepted at all")
        return Row(
            fault=self.round,
            kills=self.kills,
            accepted=len(self.ledger.accepted) - self.planted,
            unknown=len(self.ledger.unknown),
            delivered=len(self.ledger.arrived()),
            notified=len(self.ledger.notified),
            duplicated=self.ledger.duplicates,
            lost=len(self.ledger.missing()),
            note="; ".join(self.notes),
            problems=tuple(problems),
        )

    def drain(self) -> None:
        """Wait until nothing is missing and the queue is empty, or too long has passed."""
        drain_s = DRAIN_S + self.planted / DRAINED_PER_SECOND
        deadline = time.monotonic() + drain_s
        # The books first: a command takes longer, and would be asked in vain.
        while (missing := len(self.ledger.missing())) or self._listed() != [_NOTHING_LISTED]:
            if time.monotonic() > deadline:
                self.complaints.append(f"the queue is not empty after {drain_s:.0f} s")
                self.complaints += self._listed()[:5]
                return
            time.sleep(0.2 + missing / 50_000)

    def _listed(self) -> list[str]:
        return self.installation.gatepost("queue", "list").stdout.strip().splitlines()

    @property
    def _armed_file(self) -> Path:
        return Path(self.folder.name) / "failpoints"

    # --- faults ---------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL a process of `gatepost up`, which starts it again."""
        self.installation.kill(name)
        self.kills += 1

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal."""
        os.kill(self.installation.pid(name), number)

    def back_after(self, service: str) -> float:
        """Seconds until a service is ready."""
        began = time.monotonic()
        self.installation.wait_ready(service, seconds=DRAIN_S)
        return time.monotonic() - began

    def arm(self, points: Mapping[Failpoint, int]) -> None:
        """Where processes that start from now on are to die, and at which passing."""
        text = ",".join(f"{point}={count}" for point, count in points.items())
        self._armed_file.write_text(text, encoding="ascii")

    def struck(self) -> list[str]:
        """The failpoints at which a process died so far, in no order."""
        logs = Path(self.installation.data / "logs")
        texts = (path.read_text(encoding="utf-8") for path in logs.glob("*.log*"))
        return [name for text in texts for name in _FAILPOINT.findall(text)]
