"""`smtp`: what the ingress listens on and what it lets clients do."""

from __future__ import annotations

import socket
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from services.common.config.shapes import octets_between
from services.common.config.types import Domain, Duration, FilePath, Network, Section, Size
from services.common.mail.domain import AddressError, parse_domain


class Role(StrEnum):
    """What a listener is for."""

    MX = "mx"
    SUBMISSION = "submission"


class TlsMode(StrEnum):
    """How a listener offers TLS."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class ProxyProtocol(Section):
    """Load balancers that tell who the client is (PROXY protocol, versions 1 and 2)."""

    trusted: tuple[Network, ...] = ()
    """From these addresses the header is demanded and believed. Others are ordinary clients."""


class Listener(Section):
    """One port that clients connect to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    """Shown in logs and metrics."""
    address: str = ""
    """The local address to bind; blank for all."""
    port: Annotated[int, Field(ge=0, le=65535)]
    role: Role = Role.MX
    """`mx`: mail between servers. `submission`: mail from clients that log in."""
    tls: TlsMode = TlsMode.STARTTLS
    require_tls: bool | None = None
    """Overrides `smtp.require_tls` for this listener."""
    proxy_protocol: ProxyProtocol = ProxyProtocol()


class Certificate(Section):
    """A certificate for some names. Both files are read again when they change."""

    certificate_file: FilePath
    """PEM, with the chain."""
    key_file: FilePath


class Tls(Section):
    """The server's certificate. Both files are read again when they change. Other files are taken
    up once all of them can be used."""

    certificate_file: FilePath | None = None
    """PEM, with the chain. Without one, STARTTLS is not offered. From none to one, and back:
    *restart*."""
    key_file: FilePath | None = None
    further: tuple[Certificate, ...] = ()
    """Further certificates, for clients that ask for a name which one of these has (SNI). All
    others get the one above."""

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.further and self.certificate_file is None:
            raise ValueError("further certificates need certificate_file for everybody else")
        return self


_PRIVATE_NETWORKS = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "100.64.0.0/10",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
"""Loopback, private, link-local and carrier-grade addresses: nobody of the open internet."""


MIN_LINE_LENGTH = 998
"""What every sender may use."""


class Limits(Section):
    """What one client, and all of them together, may ask of the ingress."""

    connections: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Connections at a time, of one ingress process. Above: 421. Listeners of one role (`mx` or
    `submission`) may have nine tenths of them, so that servers and people leave each other room."""
    connections_per_address: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Connections at a time from one IPv4 address or IPv6 /64 network. Above: 421."""
    connections_per_minute: Annotated[int, Field(ge=0)] = 300
    """New connections from one IPv4 address or IPv6 /64 network. 0: any number. Above: 421."""
    exempt_networks: tuple[Network, ...] = _PRIVATE_NETWORKS
    """Limits per address do not apply to these. In a cluster that hides client addresses everybody
    seems to come from one of them."""
    messages_per_connection: Annotated[int, Field(ge=1)] = 1000
    recipients: Annotated[int, Field(ge=100, le=1000)] = 1000
    """Of one message. Above: 452, and the client sends the others separately."""
    errors: Annotated[int, Field(ge=1)] = 20
    """Commands in error since the last accepted message; then the connection is closed."""
    recipient_errors: Annotated[int, Field(ge=1)] = 100
    """Refused recipients since the last accepted message; then the connection is closed."""
    login_failures: Annotated[int, Field(ge=3)] = 10
    """Failed logins of one address, over all connections; then it may not log in for a while."""
    login_ban: Duration = timedelta(minutes=15)
    idle_commands: Annotated[int, Field(ge=10)] = 100
    """Commands that move no mail (NOOP, RSET, EHLO and the like, and BDAT with fewer than 64 octets
    that is not the last) since the last accepted message; then the connection is closed."""
    idle: Duration = timedelta(minutes=5)
    """How long a client may be silent (RFC 5321 asks for at least five minutes)."""
    min_data_rate: Size = 500
    """Octets a second at which content must come, on average after its first minute. 0: any."""
    content_memory: Annotated[Size, octets_between(4 * 2**20)] = 128 * 2**20
    """Memory for all contents in hand of one ingress process. Above: 452."""
    large_contents: Annotated[int, Field(ge=1, le=1000)] = 32
    """Contents over 256 KiB that are taken in at a time, at most a quarter of them (but one at
    least) from one IPv4 address or IPv6 /64 network. Others wait for a moment, then: 452."""
    storage_watermark: Annotated[float, Field(gt=0, le=1)] = 0.85
    """The part of NATS's storage from which on no new mail is taken: 452."""
    header_size: Annotated[Size, octets_between(1024, 384 * 1024)] = 256 * 1024
    line_length: Annotated[
        int,
        WithJsonSchema({"anyOf": [{"const": 0}, {"type": "integer", "minimum": MIN_LINE_LENGTH}]}),
    ] = 0
    """Octets that a line of a message may have, without its end. 0: any. RFC 5321 grants senders
    998, but much mail in order has longer lines; it is passed on as it is, since breaking lines
    would break signatures. Above: 550."""
    received_fields: Annotated[int, Field(ge=1)] = 50
    """A message that passed more servers than this is in a loop: 554."""

    @field_validator("line_length")
    @classmethod
    def _as_long_as_the_rfc_grants(cls, value: int) -> int:
        if value and value < MIN_LINE_LENGTH:
            raise ValueError(f"must be 0 (any) or at least {MIN_LINE_LENGTH} (RFC 5321 §4.5.3.1.6)")
        return value


def _default_listeners() -> tuple[Listener, ...]:
    return (
        Listener(name="mx", port=25, role=Role.MX, tls=TlsMode.STARTTLS),
        Listener(name="submission", port=587, role=Role.SUBMISSION, tls=TlsMode.STARTTLS),
        Listener(name="submissions", port=465, role=Role.SUBMISSION, tls=TlsMode.IMPLICIT),
    )


def _own_name() -> str:
    """The machine's name without asking the DNS; names that are no domain get a stand-in."""
    try:
        name = parse_domain(socket.gethostname())
    except AddressError:
        return "localhost.localdomain"
    return name if "." in name else f"{name}.localdomain"


class Smtp(Section):
    """The SMTP edge."""

    hostname: Domain = Field(default_factory=_own_name)
    """Our name: in the greeting, in Received fields, and as the HELO name of outgoing sessions."""
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1)] = Field(
        default_factory=_default_listeners
    )
    """*restart*"""
    require_tls: bool = False
    """Incoming mail must be encrypted: before STARTTLS every MAIL is answered 530."""
    max_message_size: Size = 100_000_000
    """0 is no limit."""
    tls: Tls = Tls()
    limits: Limits = Limits()
    bare_newline_networks: tuple[Network, ...] = ()
    """Clients whose lines may end in a bare LF inside content; it is made a CRLF. From everybody
    else such content is refused."""

    @model_validator(mode="after")
    def _distinct(self) -> Smtp:
        names = [listener.name for listener in self.listeners]
        if len(names) != len(set(names)):
            raise ValueError("two listeners have the same name")
        return self
