"""`smtp`: what the ingress listens on and what it lets clients do."""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from services.common.config.types import Domain, FilePath, Section, Size
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


class Tls(Section):
    """The server's certificate. Both files are read again when they change."""

    certificate_file: FilePath | None = None
    """PEM, with the chain. Without one, STARTTLS is not offered."""
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


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

    @model_validator(mode="after")
    def _distinct(self) -> Smtp:
        names = [listener.name for listener in self.listeners]
        if len(names) != len(set(names)):
            raise ValueError("two listeners have the same name")
        return self
