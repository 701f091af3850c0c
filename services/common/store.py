"""What is stored in JetStream, and how storing fails: the values of `services.common.jetstream`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any


class StoreError(Exception):
    """A call to JetStream did not succeed. The text is for logs."""


class Unavailable(StoreError):
    """No answer. What was asked may or may not have been done."""


class Full(StoreError):
    """The server has no room. What was asked was not done."""


class Conflict(StoreError):
    """Somebody else changed the subject or key first. What was asked was not done."""


class Refused(StoreError):
    """The server said no: a permission, a bad request."""


class TooLarge(Refused):
    """The message is longer than the server takes from anybody. What was asked was not done."""


class Missing(Refused):
    """There is no such stream, consumer, key or message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsTls:
    """TLS towards NATS: whom to trust, and who we are if the server asks (PEM files)."""

    authorities: Path | None = None  # None: those of the system
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """How to reach NATS. Its files are read anew at each connection: they can be rotated."""

    urls: Sequence[str]
    client_name: str
    username: str = ""
    password_file: Path | None = None
    tls: NatsTls | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it stands in a stream. `headers` holds ours and the server's."""

    subject: str
    sequence: int
    data: bytes
    time: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream's configuration as the server reports it, and what is in it."""

    config: Mapping[str, Any]
    messages: int
    octets: int


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """A consumer's configuration as the server reports it, and where it stands."""

    config: Mapping[str, Any]
    pending: int
    ack_pending: int
    ack_floor: int
    """Up to this sequence everything was acknowledged, as the server sees it."""


@dataclass(frozen=True, slots=True)
class StorageUse:
    """File storage of the account in octets. `limit` is None when the account has none."""

    used: int
    limit: int | None
