"""Where none of the services connects to, whatever the DNS says: RFC 5735, RFC 6890, RFC 4291.

An MX record is written by a stranger. Without this check anybody could have us speak SMTP to the
services of our own cluster, to the machine itself or to a cloud's metadata address.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from services.common.dns import IPAddress

_GLOBAL_IPV6: Final = ip_network("2000::/3")
"""All that is global unicast (RFC 4291 §2.4, IANA's registry): not `fec0::/10`, not `5f00::/16`."""

_WRAPPINGS: Final = (
    ip_network("64:ff9b::/96"),  # NAT64 (RFC 6052)
    ip_network("::ffff:0:0/96"),  # IPv4-mapped (RFC 4291 §2.5.5.2)
    ip_network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 2765 §2.1)
    ip_network("::/96"),  # IPv4-compatible (RFC 4291 §2.5.5.1)
)
"""The last 32 bits are the IPv4 address that is meant."""

_NOT_GLOBAL: Final = (
    ip_network("64:ff9b:1::/48"),  # local-use translation (RFC 8215)
    ip_network("3fff::/20"),  # documentation (RFC 9637)
    ip_network(
        "100.64.0.0/10"
    ),  # between a carrier and its customers (RFC 6598), and many clusters
)

_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""How the last 64 bits begin of an address that ends in an IPv4 one (RFC 5214 §6.1)."""


def is_forbidden(address: IPAddress, allowed: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether an address found in the DNS must not be connected to.

    Forbidden is all that is not global unicast, and what leads to such an address by another
    spelling, unless it lies in one of the `allowed` networks.
    """
    if _lies_in(address, allowed):
        return False
    return any(_is_special(each) and not _lies_in(each, allowed) for each in _meant(address))


def _lies_in(address: IPAddress, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _is_special(address: IPAddress) -> bool:
    return (
        not address.is_global
        or address.is_multicast
        or (isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6)
        or _lies_in(address, _NOT_GLOBAL)
    )


def _meant(address: IPAddress) -> set[IPAddress]:
    """What is judged: the IPv4 address of a mere wrapping, otherwise the address itself; and where
    an ISATAP router would send it on to, which has a prefix of its own."""
    if not isinstance(address, IPv6Address):
        return {address}
    judged: set[IPAddress] = {_wrapped(address) or address}
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        judged.add(_last_bits(address))
    return judged


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    if address.is_unspecified or address.is_loopback:
        return None
    if _lies_in(address, _WRAPPINGS):
        return _last_bits(address)
    return address.sixtofour or (address.teredo or (None, None))[1]


def _last_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
