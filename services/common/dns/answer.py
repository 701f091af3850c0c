"""The vocabulary of DNS lookups: what is asked, what comes back, who can answer.

RFC 1035 (records), RFC 2308 (the two kinds of "no": no such name, no such data), RFC 7505 (null
MX), RFC 6698 (TLSA). Nothing here does I/O or knows a library.

Guarantees: an answer is a value, and a failure is one too. No lookup raises because of what a name,
a server or the network did; "cannot tell just now" is `Status.TEMPORARY`, never an empty answer.
Names in answers are lower-case and without the final dot; the root is ".".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address


class RecordType(StrEnum):
    """The record types that mail needs."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    SOA = "SOA"
    TLSA = "TLSA"
    TXT = "TXT"


class Status(StrEnum):
    """What became of a lookup."""

    OK = "ok"
    """There are records."""
    NO_DATA = "no_data"
    """The name exists and has no record of this type (RFC 2308 §2.2)."""
    NXDOMAIN = "nxdomain"
    """The name does not exist (RFC 2308 §2.1), or could not exist: it is not a domain name."""
    TEMPORARY = "temporary"
    """Nobody can tell just now: no answer in time, SERVFAIL, a loop, an answer that makes no
    sense."""

    @property
    def definite(self) -> bool:
        """Whether asking again soon would bring the same: everything but TEMPORARY."""
        return self is not Status.TEMPORARY


@dataclass(frozen=True, slots=True)
class MxRecord:
    """A mail exchange (RFC 5321 §5.1): the lower the preference, the sooner it is tried."""

    preference: int
    exchange: str

    @property
    def is_null(self) -> bool:
        """Whether this is the "takes no mail" record of RFC 7505 (it must be the only one)."""
        return self.exchange == "."


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """A certificate association (RFC 6698 §2.1). The numbers are not checked for sense."""

    usage: int
    selector: int
    matching_type: int
    association: bytes


@dataclass(frozen=True, slots=True)
class SoaRecord:
    """The start of a zone: its primary server, its version, its negative TTL in seconds."""

    primary: str
    serial: int
    minimum: int


Record: TypeAlias = IPv4Address | IPv6Address | MxRecord | TlsaRecord | SoaRecord | bytes | str


@dataclass(frozen=True)
class Answer:
    """What one question brought.

    `records` holds values of one type, by `rdtype`: A and AAAA `IPv4Address` / `IPv6Address`; MX
    `MxRecord`; TXT `bytes` (the strings of a record joined, one value per record); PTR, CNAME and
    NS `str`; TLSA `TlsaRecord`; SOA `SoaRecord`. It is empty unless `status` is OK, and never empty
    then. The order is the server's.
    """

    name: str
    """The name asked for: lower-case, no final dot (as given, made printable, if it is no domain
    name)."""
    rdtype: RecordType
    status: Status
    records: tuple[Record, ...] = ()
    canonical: str = ""
    """The owner of the records after CNAMEs (RFC 7672 §2.2.2 needs it); blank without records."""
    authentic: bool = False
    """The server said that it validated the answer (AD, RFC 4035 §3.2.3), for every step of a CNAME
    chain. Worth as much as the path to that server is."""
    ttl: int = 0
    """Seconds that the answer may be kept, when it came in. A cached answer is not counted down."""
    detail: str = ""
    """Failures: one printable line, what was asked of whom and what happened. Blank if `status` is
    OK."""

    @cached_property
    def summary(self) -> str:
        """Name and records, or why there are none, as people write them. Made once, since it is
        told of every mail that the answer is used for."""
        if self.status is Status.OK:
            found = ", ".join(map(record_text, self.records))
        else:
            found = self.detail if self.status is Status.TEMPORARY else self.status.value
        return f"{self.name}: {found}"


def record_text(record: Record) -> str:
    """A record as people write it; may hold whatever a stranger published."""
    if isinstance(record, bytes):
        return record.decode("utf-8", errors="replace")
    if isinstance(record, MxRecord):
        return f"{record.preference} {record.exchange}"
    return str(record)


class Resolver(Protocol):
    """Looks names up. One per process, shared; used from the event loop's thread only."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Ask for the records of one type.

        `name` is absolute whether or not it ends in a dot: there is no search list. Letter case
        does not matter; valid U-labels are converted. A string that is no domain name is answered
        NXDOMAIN without asking anybody. Bounded by the resolver's deadline. Raises nothing but
        CancelledError.
        """
        ...

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer, if it is known already and still good; None otherwise. Asks nobody, costs
        microseconds."""
        ...
