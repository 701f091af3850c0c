"""Where the mail for a destination goes: a pure function of the configuration.

In this order: a local domain has its mailboxes here, a relay domain its next hop, everything else
goes to the smarthost of the sender's domain, or to that for all, or to the destination's mail
exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.config.delivery import MailboxKind, SmarthostServer
from services.common.config.model import Config
from services.common.config.next_hop import HopProtocol, NextHop
from services.common.queue.record import pending, sender_of


class RouteKind(StrEnum):
    """The kinds of route, which are the label values of metrics."""

    LOCAL = "local"
    RELAY = "relay"
    SMARTHOST = "smarthost"
    MX = "mx"


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """Into mailboxes here."""

    directory: Path

    @property
    def kind(self) -> RouteKind:
        """For metrics."""
        return RouteKind.LOCAL

    @property
    def key(self) -> str:
        """What shares a limit of concurrency."""
        return "local"


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop that the operator named, and how to be taken there."""

    next_hop: NextHop
    username: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    verified: bool = False
    ca_file: Path | None = None

    @property
    def is_lmtp(self) -> bool:
        """Whether LMTP is spoken there."""
        return self.next_hop.protocol is HopProtocol.LMTP


@dataclass(frozen=True, slots=True)
class HopRoute:
    """To next hops that the operator named, in this order."""

    hops: tuple[Hop, ...]
    kind: RouteKind

    @property
    def key(self) -> str:
        """As of `LocalRoute`."""
        return str(self.hops[0].next_hop)


@dataclass(frozen=True, slots=True)
class MxRoute:
    """To the mail exchanges of the domain, or to the address of a literal."""

    domain: str

    @property
    def kind(self) -> RouteKind:
        """As of `LocalRoute`."""
        return RouteKind.MX

    @property
    def key(self) -> str:
        """As of `LocalRoute`."""
        return self.domain


Route: TypeAlias = LocalRoute | HopRoute | MxRoute


def route_of(config: Config, destination: str, sender_domain: str = "") -> Route:
    """The route of a destination (a canonical domain or address literal) for mail of a sender."""
    if destination in config.domains.local:
        return _to_mailboxes(config)
    relay = config.domains.relay.get(destination)
    if relay is not None:
        return HopRoute((Hop(relay),), RouteKind.RELAY)
    delivery = config.delivery
    smarthost = delivery.sender_smarthosts.get(sender_domain, delivery.smarthost)
    if smarthost.servers:
        return HopRoute(tuple(map(_hop, smarthost.servers)), RouteKind.SMARTHOST)
    return MxRoute(destination)


def submitting_domain(record: QueuedMessage) -> str:
    """The domain whose smarthost a mail may use: that of its sender, if it was submitted here.

    A stranger's reverse-path proves nothing, and a smarthost knows its customer by our credentials.
    """
    sender = sender_of(record)
    is_ours = bool(record.authenticated_account) or not record.client_address
    return sender.domain if sender is not None and is_ours else ""


def is_ours_elsewhere(route: Route, record: QueuedMessage) -> bool:
    """Whether policy took this mail for a domain of ours, and our configuration knows none such.

    Mail of strangers is accepted for local and relay domains only, so a domain that no alias
    changed is one of them. The services notice a changed file at different moments.
    """
    if route.kind in (RouteKind.LOCAL, RouteKind.RELAY):
        return False
    if record.authenticated_account or not record.client_address:
        return False
    asked_for = (each.original_address.rpartition("@")[2] for each in pending(record))
    return record.destination in asked_for


def _to_mailboxes(config: Config) -> Route:
    mailbox = config.mailbox
    if mailbox.kind is MailboxKind.LMTP and mailbox.lmtp is not None:
        store = NextHop(HopProtocol.LMTP, mailbox.lmtp.host, mailbox.lmtp.port)
        return HopRoute((Hop(store),), RouteKind.LOCAL)
    return LocalRoute(mailbox.directory)


def _hop(server: SmarthostServer) -> Hop:
    return Hop(
        NextHop(HopProtocol.SMTP, server.host, server.effective_port),
        server.username,
        server.password_file,
        server.token_file,
        verified=bool(server.username) and server.verify_certificate,
        ca_file=server.ca_file,
    )
