"""Where none of the services connects to, whatever the DNS says: RFC 5735, RFC 6890, RFC 4291.

An MX record is written by a stranger. Without this check anybody could have us speak SMTP to the
services of our own cluster, to the machine itself or to a cloud's metadata address.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from services.common.dns import IPAddress

_TRANSLATED: Final = ip_network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is meant."""

_NOT_GLOBAL: Final = (
    ip_network("64:ff9b:1::/48"),  # local-use translation (RFC 8215)
    ip_network(
        "100.64.0.0/10"
    ),  # between a carrier and its customers (RFC 6598), and many clusters
)


def is_forbidden(address: IPAddress, allowed: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether an address found in the DNS must not be connected to.

    Forbidden is all that is not global unicast, and what leads to such an address by another
    spelling, unless it lies in one of the `allowed` networks.
    """
    meant = _meant(address)
    if any(each in network for each in {address, meant} for network in allowed):
        return False
    return any(map(_is_special, {address, meant}))


def _is_special(address: IPAddress) -> bool:
    if isinstance(address, IPv6Address) and _meant(address) != address:
        return False  # a wrapping; what it wraps is judged
    return (
        not address.is_global
        or address.is_multicast
        or any(address in network for network in _NOT_GLOBAL)
    )


def _meant(address: IPAddress) -> IPAddress:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 one; otherwise the address itself."""
    if not isinstance(address, IPv6Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return (
        address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    )
