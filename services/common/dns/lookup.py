"""The lookups that mail makes most, with typed results.

RFC 5321 §5.1 (MX and addresses), RFC 1035 §3.5 (reverse names). Free functions over any `Resolver`:
they add types and join the two address families, and decide nothing about mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from services.common.dns.answer import Answer, IPAddress, MxRecord, RecordType, Resolver, Status

BOTH_FAMILIES = (RecordType.AAAA, RecordType.A)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lookup(Generic[T]):
    """Records of one Python type; the other fields as in `Answer`."""

    name: str
    status: Status
    records: tuple[T, ...] = ()
    canonical: str = ""
    authentic: bool = False
    ttl: int = 0
    detail: str = ""
    partial: bool = False
    """Some records were found and others could not be looked up just now (`detail` says why): that
    something is not among `records` proves nothing."""


async def addresses(
    resolver: Resolver, host: str, families: Sequence[RecordType] = BOTH_FAMILIES
) -> Lookup[IPAddress]:
    """The addresses of a host, in the order of `families` (A, AAAA, or both).

    OK as soon as one family has an address; otherwise TEMPORARY if one could not be looked up,
    since "it has no address" would then be a guess; otherwise NO_DATA or NXDOMAIN.
    """
    if not families or set(families) - set(BOTH_FAMILIES):
        raise ValueError(f"families must be A, AAAA or both, not {list(families)}")
    asked = await asyncio.gather(*(resolver.query(host, family) for family in families))
    return _joined(asked)


async def mx(resolver: Resolver, domain: str) -> Lookup[MxRecord]:
    """The mail exchanges of a domain by preference; equal ones in the server's order (shuffle those
    yourself).

    A null MX (RFC 7505) is an OK lookup whose only record `is_null`. NO_DATA is where the implicit
    MX begins.
    """
    answer = await resolver.query(domain, RecordType.MX)
    found = _typed(answer, MxRecord)
    return _lookup(answer, tuple(sorted(found, key=lambda record: record.preference)))


async def txt(resolver: Resolver, name: str) -> Lookup[bytes]:
    """The TXT records of a name, each with its strings joined without a gap (RFC 7208 §3.3, RFC
    6376 §3.6.2.2)."""
    answer = await resolver.query(name, RecordType.TXT)
    return _lookup(answer, _typed(answer, bytes))


async def ptr(resolver: Resolver, address: IPAddress) -> Lookup[str]:
    """The names that an address says it has. Anybody can claim any name: look it up the other way
    too."""
    answer = await resolver.query(address.reverse_pointer, RecordType.PTR)
    return _lookup(answer, _typed(answer, str))


def _typed(answer: Answer, kind: type[T]) -> tuple[T, ...]:
    return tuple(record for record in answer.records if isinstance(record, kind))


def _lookup(answer: Answer, records: tuple[T, ...]) -> Lookup[T]:
    return Lookup(
        answer.name,
        answer.status,
        records,
        canonical=answer.canonical,
        authentic=answer.authentic,
        ttl=answer.ttl,
        detail=answer.detail,
    )


def _joined(answers: Sequence[Answer]) -> Lookup[IPAddress]:
    records: list[IPAddress] = []
    for answer in answers:
        records += _typed(answer, IPv4Address) + _typed(answer, IPv6Address)
    status = _joined_status({answer.status for answer in answers})
    telling = [answer for answer in answers if answer.status is status]
    temporary = [answer for answer in answers if answer.status is Status.TEMPORARY]
    return Lookup(
        answers[0].name,
        status,
        tuple(records),
        canonical=telling[0].canonical,
        authentic=all(answer.authentic for answer in telling),
        ttl=min(answer.ttl for answer in answers),
        detail="; ".join(answer.detail for answer in (temporary or telling) if answer.detail),
        partial=status is Status.OK and bool(temporary),
    )


def _joined_status(statuses: set[Status]) -> Status:
    for status in (Status.OK, Status.TEMPORARY, Status.NO_DATA):
        if status in statuses:
            return status
    return Status.NXDOMAIN
