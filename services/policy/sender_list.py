"""Lists of senders: networks, domains with all below them, and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from services.common.mail.address import Mailbox, parse_mailbox
from services.policy.subject import Envelope, IPAddress


@dataclass(frozen=True, slots=True)
class SenderList:
    """Entries of `policy.allow` or `policy.deny`, prepared for look-ups."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    domains: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[str]) -> SenderList:
        """Prepare entries that the configuration has checked."""
        networks: list[IPv4Network | IPv6Network] = []
        domains: set[str] = set()
        addresses: set[str] = set()
        for entry in entries:
            if "@" in entry:
                addresses.add(parse_mailbox(entry, smtputf8=True).key)
                continue
            try:
                networks.append(ip_network(entry))
            except ValueError:
                domains.add(entry)
        return cls(tuple(networks), frozenset(domains), frozenset(addresses))

    def __bool__(self) -> bool:
        return bool(self.networks or self.domains or self.addresses)

    def network_of(self, address: IPAddress) -> str:
        """The entry that has this client; blank if none has."""
        return next((str(network) for network in self.networks if address in network), "")

    def entry_of(self, sender: Mailbox | None) -> str:
        """The entry that has this sender; blank if none has."""
        if sender is None:
            return ""
        if sender.key in self.addresses:
            return str(sender)
        labels = sender.domain.split(".")
        above = (".".join(labels[start:]) for start in range(len(labels)))
        return next((domain for domain in above if domain in self.domains), "")

    def find(self, envelope: Envelope) -> str:
        """The entry that has the client or the sender; blank if none has."""
        return self.network_of(envelope.session.address) or self.entry_of(envelope.sender)


NOBODY = SenderList()
