"""`nats`, `dns`, `services`, `auth`, `log`: the parts that mail does not see."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from services.common.config.types import (
    DnsServer,
    Duration,
    Endpoint,
    FilePath,
    HostPort,
    PositiveDuration,
    Section,
    Size,
)


class NatsTls(Section):
    """TLS towards NATS. The files are read anew at each connection."""

    ca_file: FilePath | None = None
    """The authorities that certify the servers; blank for those of the system."""
    certificate_file: FilePath | None = None
    """Our own certificate, for servers that ask for one. With `key_file`."""
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _both(self) -> NatsTls:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class Nats(Section):
    """The NATS server that keeps the queue."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)] = ("nats://127.0.0.1:4222",)
    """`tls://host:port` for TLS, without which nothing is then said; `nats://host:port` for plain
    text. All of one kind."""
    tls: NatsTls = NatsTls()
    embedded: bool = True
    """`gatepost up` starts a server at the first URL; false: one of yours is there already."""
    storage_limit: Size = 10 * 10**9
    """How much the server of `gatepost up` may store."""
    username: str = ""
    password_file: FilePath | None = None
    """Read anew at each connection."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """How many servers keep a copy of each stream that is made. Streams that exist stay as made."""
    events_max_age: Duration = timedelta(days=7)
    """How long the history of a mail is kept. 0: for ever."""
    events_max_size: Size = 256 * 2**20
    """How much all histories may take; the oldest go first. It must fit into NATS's storage beside
    the queue. 0: any."""

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.urls[0].startswith("tls://")

    @model_validator(mode="after")
    def _one_kind(self) -> Nats:
        # A client that meets a plain URL among others would send its password in clear.
        if any(url.startswith("tls://") != self.encrypted for url in self.urls):
            raise ValueError("urls must begin with tls:// all, or none of them")
        if self.tls != NatsTls() and not self.encrypted:
            raise ValueError("tls has an effect only with urls that begin with tls://")
        return self


class Dns(Section):
    """Where names are looked up."""

    servers: tuple[DnsServer, ...] = ()
    """`address` or `address:port`; blank for those of /etc/resolv.conf."""
    attempt_timeout: PositiveDuration = timedelta(seconds=2)
    """How long to wait for one server, once."""
    timeout: Duration = timedelta(seconds=5)
    """How long a lookup may take in all."""
    validating: bool = False
    """All of these servers validate DNSSEC, and nobody can change what they say on its way here:
    their word that an answer is authentic is relied on, as DANE needs."""

    @model_validator(mode="after")
    def _order(self) -> Dns:
        if self.attempt_timeout > self.timeout:
            raise ValueError("attempt_timeout must be above 0 and at most timeout")
        return self


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least important line that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Section):
    """Logging, on standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.JSON


class HttpService(Section):
    """A service without gRPC."""

    http: HostPort
    """Metrics and health. *restart*"""


class RpcService(HttpService):
    """A service with gRPC."""

    grpc: HostPort
    """Where it listens. *restart*"""
    target: str = ""
    """How the others reach it; blank: at the port above on this machine. *restart*"""

    @property
    def reached_at(self) -> str:
        """The gRPC target that clients of this service dial."""
        if self.target:
            return self.target
        wildcard = self.grpc.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        return str(Endpoint("127.0.0.1" if wildcard else self.grpc.host, self.grpc.port))


def _any(port: int) -> Endpoint:
    return Endpoint("0.0.0.0", port)  # noqa: S104 - in a pod the network policy is what limits access


class RpcTls(Section):
    """TLS of the gRPC ports. A renewed certificate is used within seconds."""

    certificate_file: FilePath | None = None
    """The servers' certificate, with the chain. Its names are those that the services are reached
    at. Blank: plain text."""
    key_file: FilePath | None = None
    ca_file: FilePath | None = None
    """The authorities that certify it, which clients trust and no others."""

    @property
    def enabled(self) -> bool:
        """Whether gRPC is TLS."""
        return self.certificate_file is not None

    @model_validator(mode="after")
    def _all(self) -> RpcTls:
        given = [each is not None for each in (self.certificate_file, self.key_file, self.ca_file)]
        if any(given) and not all(given):
            raise ValueError("certificate_file, key_file and ca_file go together")
        return self


class Services(Section):
    """Where each service listens."""

    ingress: HttpService = HttpService(http=_any(9101))
    policy: RpcService = RpcService(http=_any(9102), grpc=_any(7100))
    delivery: RpcService = RpcService(http=_any(9103), grpc=_any(7300))
    keys: RpcService = RpcService(http=_any(9104), grpc=_any(7200))
    grace_period: Duration = timedelta(seconds=30)
    """How long a stopping service may take to finish what it has in hand."""
    tls: RpcTls = RpcTls()


class Auth(Section):
    """Who may call the gRPC services."""

    tokens_directory: FilePath = Path("/etc/gatepost/tokens")
    """Holds service.token, operator.token and viewer.token, one token a line."""
