"""From a route to the addresses to try, in order: RFC 5321 §5.1, RFC 7505, RFC 3974.

Guarantees: doubt in the DNS defers, and only a definite "no such domain" or "takes no mail" gives a
mail up; an address that delivery must not go to is never among those returned; names are looked
up as absolute ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from services.common.config.delivery import AddressFamily
from services.common.config.next_hop import NextHop
from services.common.dns import IPAddress, Lookup, MxRecord, Resolver, Status, addresses, mx
from services.common.mail.domain import parse_literal
from services.common.mail.reply import Reply
from services.common.networks import is_forbidden

Networks = Sequence[IPv4Network | IPv6Network]

MAX_EXCHANGES: Final = 10
"""Names looked up for one mail; a domain with more is served by the best of them."""

MAX_ADDRESSES: Final = 10
"""Addresses tried in one attempt. More would only make a dead destination take longer."""

NULL_MX: Final = Reply(556, "5.1.10", "The domain accepts no mail (null MX)")
NO_SUCH_DOMAIN: Final = Reply(550, "5.1.2", "The domain does not exist")
NO_MAIL_HOST: Final = Reply(550, "5.4.4", "The domain has neither mail exchange nor address")
LOOKUP_FAILED: Final = Reply(451, "4.4.3", "The mail exchanges cannot be looked up just now")
ALL_FORBIDDEN: Final = Reply(
    451, "4.4.4", "The mail exchanges are in networks that mail is not sent to"
)
OURSELVES: Final = Reply(550, "5.4.6", "The mail exchange is this server: a mail loop")
OTHER_FAMILY: Final = Reply(
    451, "4.4.4", "The next hop has no address of the family that delivery.address_family allows"
)
HOP_UNKNOWN: Final = Reply(451, "4.4.3", "The next hop's address cannot be found just now")


_VERSIONS: Final = {AddressFamily.IPV4: 4, AddressFamily.IPV6: 6}
_PREFERRED: Final = {AddressFamily.PREFER_IPV4: 4, AddressFamily.PREFER_IPV6: 6}


class NoExchange(Exception):
    """There is nothing to connect to; `reply` is what that means for the mail."""

    def __init__(self, reply: Reply, detail: str = "") -> None:
        super().__init__(detail or reply.text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Host:
    """A place to try: an address, and the name under which it was found."""

    name: str
    address: IPAddress
    canonical: str = ""
    """The name at the end of its aliases, if it was looked up."""
    authentic: bool = False
    """The resolver validated its addresses."""
    listed_authentically: bool = False
    """The resolver validated that it is an exchange of the domain."""


def of_family(found: Sequence[IPAddress], family: AddressFamily) -> list[IPAddress]:
    """Those addresses of one host that are used, in the order of trying."""
    wanted = _VERSIONS.get(family)
    if wanted is not None:
        return [address for address in found if address.version == wanted]
    preferred = _PREFERRED.get(family)
    return (
        sorted(found, key=lambda address: address.version != preferred) if preferred else [*found]
    )


async def hosts_of_hop(
    resolver: Resolver, hop: NextHop, family: AddressFamily = AddressFamily.ANY
) -> list[Host]:
    """The addresses of a next hop that the operator named; one that is an address is used in any
    case. Raises `NoExchange` (temporary).
    """
    try:
        return [Host(hop.host, ip_address(hop.host))]
    except ValueError:
        pass
    found = await addresses(resolver, hop.host)
    if found.status is not Status.OK:
        # Even "no such name": a typing error of ours must not bounce everybody's mail.
        raise NoExchange(HOP_UNKNOWN, found.detail)
    usable = of_family(found.records, family)
    if not usable:
        raise NoExchange(OTHER_FAMILY)
    return [Host(hop.host, address) for address in usable][:MAX_ADDRESSES]


async def hosts_of_domain(
    resolver: Resolver,
    domain: str,
    *,
    own_name: str,
    allowed: Networks,
    family: AddressFamily = AddressFamily.ANY,
) -> list[Host]:
    """The addresses that take the mail of a domain, best first. Raises `NoExchange`."""
    if domain.startswith("["):
        if not of_family([parse_literal(domain)], family):
            raise NoExchange(OTHER_FAMILY)
        return _permitted([Host(domain, parse_literal(domain))], allowed)
    exchanges, authentic = await _exchanges(resolver, domain, own_name)
    found: list[Host] = []
    doubt, passed_over = "", False
    for exchange in exchanges[:MAX_EXCHANGES]:
        looked_up = await addresses(resolver, exchange)
        if looked_up.status is Status.TEMPORARY or looked_up.partial:
            doubt = doubt or looked_up.detail
        canonical = looked_up.canonical or exchange
        usable = of_family(looked_up.records, family)
        passed_over = passed_over or len(usable) < len(looked_up.records)
        found += [
            Host(exchange, address, canonical, looked_up.authentic, authentic) for address in usable
        ]
        if len(found) >= MAX_ADDRESSES:
            break
    if found:
        return _permitted(found, allowed)[:MAX_ADDRESSES]
    if passed_over and not doubt:
        raise NoExchange(OTHER_FAMILY)
    raise NoExchange(LOOKUP_FAILED if doubt else NO_MAIL_HOST, doubt)


async def _exchanges(resolver: Resolver, domain: str, own_name: str) -> tuple[list[str], bool]:
    """The names of the exchanges in the order of trying, and whether that was validated."""
    found = await mx(resolver, domain)
    match found.status:
        case Status.TEMPORARY:
            raise NoExchange(LOOKUP_FAILED, found.detail)
        case Status.NXDOMAIN:
            raise NoExchange(NO_SUCH_DOMAIN, found.detail)
        case Status.NO_DATA:
            return [domain], found.authentic  # implicit MX
    return _ordered(found, own_name), found.authentic


def _ordered(found: Lookup[MxRecord], own_name: str) -> list[str]:
    records = [record for record in found.records if not record.is_null]
    if not records:
        raise NoExchange(NULL_MX)
    # If we are an exchange of the domain ourselves, only better ones than us may get the mail:
    # worse ones would hand it back (RFC 5321 §5.1).
    own = [record.preference for record in records if record.exchange == own_name]
    if own:
        records = [record for record in records if record.preference < min(own)]
        if not records:
            raise NoExchange(OURSELVES)
    shuffled = random.sample(records, len(records))
    return [record.exchange for record in sorted(shuffled, key=lambda record: record.preference)]


def _permitted(hosts: list[Host], allowed: Networks) -> list[Host]:
    permitted = [host for host in hosts if not is_forbidden(host.address, allowed)]
    if not permitted:
        raise NoExchange(ALL_FORBIDDEN, f"forbidden: {', '.join(str(h.address) for h in hosts)}")
    return permitted
