"""Where the mail for a destination goes: a pure function of the configuration.

In this order: a local domain has its mailboxes here, a relay domain its next hop, everything else
goes to the smarthost if there is one, otherwise to the destination's mail exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from services.common.config.model import Config
from services.common.config.next_hop import HopProtocol, NextHop, parse_next_hop


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """Into mailboxes here."""

    directory: Path

    @property
    def kind(self) -> str:
        """The label of metrics."""
        return "local"

    @property
    def key(self) -> str:
        """What shares a limit of concurrency, for logs and metrics too."""
        return "local"


@dataclass(frozen=True, slots=True)
class HopRoute:
    """To a next hop that the operator named."""

    hop: NextHop
    username: str = ""
    password_file: Path | None = None
    is_smarthost: bool = False

    @property
    def kind(self) -> str:
        """As of `LocalRoute`."""
        return "smarthost" if self.is_smarthost else "relay"

    @property
    def key(self) -> str:
        """As of `LocalRoute`."""
        return str(self.hop)


@dataclass(frozen=True, slots=True)
class MxRoute:
    """To the mail exchanges of the domain, or to the address of a literal."""

    domain: str

    @property
    def kind(self) -> str:
        """As of `LocalRoute`."""
        return "mx"

    @property
    def key(self) -> str:
        """As of `LocalRoute`."""
        return self.domain


Route: TypeAlias = LocalRoute | HopRoute | MxRoute


def route_of(config: Config, destination: str) -> Route:
    """The route of a destination (a canonical domain or address literal)."""
    if destination in config.domains.local:
        return LocalRoute(config.mailbox.directory)
    relay = config.domains.relay.get(destination)
    if relay is not None:
        return HopRoute(parse_next_hop(relay))
    smarthost = config.delivery.smarthost
    if smarthost.host:
        return HopRoute(
            NextHop(HopProtocol.SMTP, smarthost.host, smarthost.effective_port),
            smarthost.username,
            smarthost.password_file,
            is_smarthost=True,
        )
    return MxRoute(destination)
