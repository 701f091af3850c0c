"""The value types of the configuration: durations, sizes, networks, all parsed at load."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from services.common.config import shapes
from services.common.dns.servers import parse_server
from services.common.mail.address import AddressError, parse_domain, parse_mailbox

_DURATION: Final = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)\s*", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE: Final = re.compile(
    r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?\s*", re.ASCII
)
_OCTETS: Final = {
    None: 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


def parse_duration(value: Any) -> timedelta:
    """`60m`, `1.5h`, `500ms`, or `0`."""
    if isinstance(value, timedelta):
        return value
    if value in (0, "0") and value is not False:
        return timedelta(0)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number with a unit, for example 30s, 60m, 4h or 7d")
    try:
        return timedelta(seconds=float(match["number"]) * _SECONDS[match["unit"]])
    except OverflowError:
        raise ValueError("a duration has fewer than a thousand million days") from None


def format_duration(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit in ("d", "h", "m", "s"):
        size = round(_SECONDS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


def parse_size(value: Any) -> int:
    """`100MB` (10⁶ octets), `100MiB` (2²⁰), or a number of octets."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is a number with a unit, for example 256KiB, 100MB or 1GiB")
    try:
        return int(float(match["number"]) * _OCTETS[match["unit"]])
    except OverflowError:
        raise ValueError("a size is a number of octets that there can be") from None


def format_size(value: int) -> str:
    """The shortest form that `parse_size` reads back."""
    for unit in ("TB", "GB", "MB", "KB", "TiB", "GiB", "MiB", "KiB"):
        if value and value % _OCTETS[unit] == 0:
            return f"{value // _OCTETS[unit]}{unit}"
    return str(value)


def _parse_network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value))
    except ValueError as error:
        raise ValueError(
            f"an address or network such as 192.0.2.0/24 or 2001:db8::/32 ({error})"
        ) from None


def _parse_domain(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a domain, for example example.org")  # noqa: TRY004 - pydantic's way
    return parse_domain(value)


def _parse_sender(value: Any) -> str:
    """A network, a domain or an address, in its canonical spelling."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        return str(ip_network(text))
    except ValueError:
        pass
    try:
        return str(parse_mailbox(text, smtputf8=True)) if "@" in text else parse_domain(text)
    except AddressError as error:
        raise ValueError(
            f"a network, a domain or an address, such as 192.0.2.0/24 or example.org ({error})"
        ) from None


class Endpoint(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(value: Any) -> Endpoint:
    """`host:port`, with an IPv6 address in brackets."""
    if isinstance(value, Endpoint):
        return value
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or not (port.isascii() and port.isdigit())
        or not 0 <= int(port) <= 65535
        or (":" in host and not bracketed)
        or any(map(str.isspace, host))
    ):
        raise ValueError("host:port, for example 127.0.0.1:7100 or [::1]:7100")
    return Endpoint((host[1:-1] if bracketed else host) or "0.0.0.0", int(port))  # noqa: S104 - an empty host means all addresses


def _parse_dns_server(text: str) -> str:
    parse_server(text)
    return text


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"const": 0}, shapes.text(shapes.DURATION)], "examples": ["60m"]},
    ),
]
PositiveDuration = Annotated[
    Duration, Field(gt=timedelta(0)), shapes.of_text(shapes.POSITIVE_DURATION, "60m")
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": shapes.SIZE,
            "examples": ["100MB"],
        }
    ),
]
Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_parse_network),
    PlainSerializer(str, return_type=str),
    shapes.of_text(shapes.NETWORK, "192.0.2.0/24"),
]
HostPort = Annotated[
    Endpoint,
    BeforeValidator(parse_endpoint),
    PlainSerializer(str, return_type=str),
    shapes.of_text(shapes.HOST_PORT),
]
DnsServer = Annotated[
    str,
    AfterValidator(_parse_dns_server),
    shapes.of_text(shapes.DNS_SERVER, "192.0.2.53", "[2001:db8::53]:5353"),
]
Domain = Annotated[
    str, BeforeValidator(_parse_domain), shapes.of_text(shapes.DOMAIN, "example.org")
]
SenderEntry = Annotated[
    str,
    BeforeValidator(_parse_sender),
    shapes.of_text(shapes.SENDER, "192.0.2.0/24", "example.org", "ann@example.org"),
]
FilePath = Annotated[
    Path,
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["/etc/gatepost/tls.crt"]}),
]
