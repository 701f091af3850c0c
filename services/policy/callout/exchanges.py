"""Whom to ask about an address: RFC 5321 §5.1, RFC 7505.

Guarantees: no address in a forbidden network is ever among those returned, by whatever record it
was found; and only a definite answer of the DNS says that nobody takes mail for the domain.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from services.common.dns import (
    IPAddress,
    Resolver,
    Status,
    addresses,
    mx,
)
from services.common.networks import is_forbidden

MAX_EXCHANGES = 3
MAX_HOSTS = 4
"""Addresses tried for one question: a client waits for the answer."""


@dataclass(frozen=True, slots=True)
class Host:
    """A place to ask."""

    name: str
    address: IPAddress


class NobodyTakesMail(Exception):
    """The DNS says that there is no mail exchange. The text is for evidence."""


class NowhereToAsk(Exception):
    """There may be one, but it cannot be asked just now. The text is for evidence."""


async def hosts_of(
    domain: str, resolver: Resolver, *, allowed: Sequence[IPv4Network | IPv6Network]
) -> list[Host]:
    """The hosts to ask, best first. Raises `NobodyTakesMail`, `NowhereToAsk`."""
    hosts: list[Host] = []
    forbidden: list[str] = []
    doubt = ""
    for exchange in await _exchanges(domain, resolver):
        found = await addresses(resolver, exchange)
        if found.status is Status.TEMPORARY or found.partial:
            doubt = found.detail
        for address in found.records:
            if is_forbidden(address, allowed):
                forbidden.append(f"{exchange} at {address}")
            else:
                hosts.append(Host(exchange, address))
    if hosts:
        return hosts[:MAX_HOSTS]
    if forbidden:
        raise NowhereToAsk(f"in a forbidden network: {', '.join(forbidden[:MAX_HOSTS])}")
    if doubt:
        raise NowhereToAsk(doubt)
    raise NobodyTakesMail(f"no mail exchange of {domain} has an address")


async def _exchanges(domain: str, resolver: Resolver) -> list[str]:
    found = await mx(resolver, domain)
    match found.status:
        case Status.TEMPORARY:
            raise NowhereToAsk(found.detail)
        case Status.NXDOMAIN:
            raise NobodyTakesMail(f"{domain} does not exist")
        case Status.NO_DATA:
            return [domain]  # implicit MX
    records = [record for record in found.records if not record.is_null]
    if not records:
        raise NobodyTakesMail(f"{domain} says that it takes no mail (null MX)")
    shuffled = random.sample(records, len(records))
    ordered = sorted(shuffled, key=lambda record: record.preference)
    return [record.exchange for record in ordered[:MAX_EXCHANGES]]
