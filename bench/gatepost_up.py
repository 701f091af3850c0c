"""Gatepost as a contender: a whole `gatepost up`, all default checks, every publish synced."""

from __future__ import annotations

from typing import Any, Final

from bench.contender import Name, Surroundings
from bench.mail import RECIPIENT_DOMAIN
from bench.names import LOOPBACK
from tests.support.installation import Installation

_MEMBERS: Final = ("ingress", "policy", "delivery", "nats")
_SYNCED: Final = "sync_interval: always"


class Gatepost:
    """One `gatepost up` with one relay domain, whose mail goes to the sink."""

    name = Name.GATEPOST

    def __init__(
        self,
        surroundings: Surroundings,
        config: dict[str, Any] | None = None,
        *,
        evidence: tuple[str, ...] = (),
    ) -> None:
        surroundings.folder.mkdir(parents=True)
        self.evidence = evidence
        self.installation = Installation(
            surroundings.folder,
            {
                "domains": {
                    "relay": {RECIPIENT_DOMAIN: f"smtp:{LOOPBACK}:{surroundings.sink_port}"}
                },
                "dns": {"servers": [f"{LOOPBACK}:{surroundings.dns_port}"]},
                **(config or {}),
            },
        )
        self.port = self.installation.ports["mx"]

    def start(self) -> None:
        """Start, and return when everything is ready and surely synced."""
        self.installation.start()
        nats = (self.installation.data / "nats" / "nats.conf").read_text(encoding="utf-8")
        if _SYNCED not in nats:
            raise RuntimeError("nats-server does not sync each publish")

    def stop(self) -> None:
        """End it."""
        self.installation.close()

    def roots(self) -> list[int]:
        """The supervisor; all others descend from it."""
        return [self.installation.supervisor_pid]

    def members(self) -> dict[str, int]:
        """The services that incoming mail passes, and nats-server."""
        return {name: self.installation.pid(name) for name in _MEMBERS}
