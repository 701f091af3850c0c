"""The PROXY protocol header, versions 1 and 2, as HAProxy's specification (2020/03/05) has it.

A pure parser that asks for octets: `wanted` says how many more it needs, never more than belong to
the header, so that what follows (a greeting to wait for, or a TLS handshake) stays in the socket.
Refuses: everything that is not exactly a header; checksums and other extensions are skipped unread.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_V1_START: Final = b"PROXY "
_V1_MAX_OCTETS: Final = 107
_V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = len(_V2_SIGNATURE) + 4
_V2_MAX_OCTETS: Final = 4096
"""Addresses take 36 octets; extensions of a load balancer some hundred."""

_V1_FAMILIES: Final = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_TCP4, _V2_TCP6 = 0x11, 0x21


class ProxyError(ValueError):
    """Not a PROXY header that tells who is connected."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """The client behind the proxy."""

    address: IPv4Address | IPv6Address
    port: int


def canonical_address(text: str) -> IPv4Address | IPv6Address:
    """The address as a socket tells it, without its zone.

    A dual-stack socket shows IPv4 clients as mapped addresses; SPF and limits want the real one.
    """
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


class ProxyHeader:
    """One header. Feed it `wanted` octets at a time until that is 0; then see `client`."""

    def __init__(self) -> None:
        self.client: Proxied | None = None
        """None after the end: the proxy itself is connected, to see whether we are alive."""
        self.wanted = len(_V2_SIGNATURE)
        self._data = b""

    def feed(self, octets: bytes) -> None:
        """The next octets, at most `wanted`. Raises `ProxyError`."""
        if not octets or len(octets) > self.wanted:
            raise ValueError("feed what is wanted")
        self._data += octets
        self.wanted -= len(octets)
        if not self.wanted:
            if self._data.startswith(_V1_START):
                self._feed_v1()
            elif self._data.startswith(_V2_SIGNATURE):
                self._feed_v2()
            else:
                raise ProxyError("no PROXY header")

    def _feed_v1(self) -> None:
        if self._data.endswith(b"\r\n"):
            self.client = _parse_v1(self._data)
        elif len(self._data) >= _V1_MAX_OCTETS:
            raise ProxyError("the PROXY header is too long")
        else:
            # Octet by octet: its end can only be told when it is there.
            self.wanted = 1

    def _feed_v2(self) -> None:
        if len(self._data) < _V2_FIXED:
            self.wanted = _V2_FIXED - len(self._data)
            return
        command, family, length = struct.unpack_from("!BBH", self._data, len(_V2_SIGNATURE))
        if length > _V2_MAX_OCTETS:
            raise ProxyError("the PROXY header is too long")
        self.wanted = _V2_FIXED + length - len(self._data)
        if not self.wanted:
            self.client = _parse_v2(command, family, self._data[_V2_FIXED:])


def _parse_v1(line: bytes) -> Proxied | None:
    words = line[:-2].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    if len(words) != 6 or words[1] not in _V1_FAMILIES:
        raise ProxyError("the PROXY header has not six words")
    try:
        source, _ = (ip_address(word.decode("ascii")) for word in words[2:4])
        port, _ = (_port(word) for word in words[4:6])
    except (ValueError, UnicodeDecodeError) as error:
        raise ProxyError("the PROXY header has no address") from error
    if not isinstance(source, _V1_FAMILIES[words[1]]):
        raise ProxyError("the PROXY header mixes address families")
    return Proxied(canonical_address(str(source)), port)


def _port(word: bytes) -> int:
    if not (word.isdigit() and len(word) <= 5 and int(word) <= 65535):
        raise ValueError("not a port")
    return int(word)


def _parse_v2(command: int, family: int, body: bytes) -> Proxied | None:
    if command == _V2_LOCAL:
        return None
    if command != _V2_PROXY:
        raise ProxyError("the PROXY header has an unknown command")
    if family == _V2_TCP4 and len(body) >= 12:
        return Proxied(IPv4Address(body[:4]), struct.unpack_from("!H", body, 8)[0])
    if family == _V2_TCP6 and len(body) >= 36:
        return Proxied(
            canonical_address(str(IPv6Address(body[:16]))), struct.unpack_from("!H", body, 32)[0]
        )
    raise ProxyError("the PROXY header tells of no TCP connection")
