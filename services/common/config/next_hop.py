"""Where a session goes when the operator says so: `smtp:host:port` or `lmtp:host:port`."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator, PlainSerializer

from services.common.config import shapes
from services.common.config.types import Endpoint, parse_endpoint
from services.common.mail.domain import parse_domain

SMTP_PORT: Final = 25


class HopProtocol(StrEnum):
    """What is spoken there."""

    SMTP = "smtp"
    LMTP = "lmtp"


class NextHop(NamedTuple):
    """A host that takes mail. `host` is a name or an address without brackets."""

    protocol: HopProtocol
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.protocol}:{Endpoint(self.host, self.port)}"


def parse_next_hop(value: Any) -> NextHop:
    """`smtp:host:port`, `lmtp:host:port`, or `smtp:host` for port 25."""
    if isinstance(value, NextHop):
        return value
    if not isinstance(value, str):
        raise ValueError("a next hop is smtp:host:port or lmtp:host:port")  # noqa: TRY004 - pydantic's way
    scheme, _, place = value.partition(":")
    if scheme not in tuple(HopProtocol) or not place or place.startswith(":"):
        raise ValueError("a next hop is smtp:host:port or lmtp:host:port")
    protocol = HopProtocol(scheme)
    has_port = place.rpartition(":")[2].isdigit() and not place.endswith("]")
    if not has_port and protocol is HopProtocol.LMTP:
        raise ValueError("an lmtp next hop needs a port (RFC 2033 forbids 25)")
    endpoint = parse_endpoint(place if has_port else f"{place}:{SMTP_PORT}")
    if not endpoint.port:
        raise ValueError("a next hop has a port from 1 to 65535")
    return NextHop(protocol, parse_host(endpoint.host), endpoint.port)


def parse_host(text: str) -> str:
    """A host's name in its canonical form, or its address without brackets."""
    try:
        return str(ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text))
    except ValueError:
        return parse_domain(text)


def _parse_blank_or_host(value: Any) -> str:
    if value in ("", None):
        return ""
    if not isinstance(value, str):
        raise ValueError("a host, for example smtp.example.net")  # noqa: TRY004 - pydantic's way
    return parse_host(value)


NextHopSetting = Annotated[
    NextHop,
    BeforeValidator(parse_next_hop),
    PlainSerializer(str, return_type=str),
    shapes.of_text(shapes.NEXT_HOP, "smtp:mail.example.org:25", "lmtp:[::1]:24"),
]
Host = Annotated[
    str,
    BeforeValidator(_parse_blank_or_host),
    shapes.of_text(shapes.HOST, "smtp.example.net", blank=True),
]
