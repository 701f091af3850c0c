"""Which TLSA records a mail exchange has: RFC 7672 §2 (finding them), §3 (using them).

Only what the resolver validated counts, and only if the operator said that it validates: the MX
records (or that there are none), the host's addresses, and the TLSA records themselves. TLSA
records are looked up only where the addresses were validated, as §2.2.2 says: name servers of
unsigned zones are known to fail on such questions.

Guarantees: a lookup that fails is a `TlsaUnknown`, and the host is not used; that it has no such
records is believed only if somebody said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.common.dns import Answer, RecordType, Resolver, Status, TlsaRecord
from services.delivery.exchanges import Host
from services.delivery.tls.association import usable

MAX_RECORDS: Final = 32
"""Of one host. Each costs digests in each handshake; real ones have two to four."""


class TlsaUnknown(Exception):
    """Nobody can tell just now which TLSA records a host has."""


@dataclass(frozen=True, slots=True)
class Dane:
    """What a host has to show."""

    base: str
    """The name whose records these are, and which is asked for in the handshake (RFC 7672
    §8.1)."""
    records: tuple[TlsaRecord, ...]
    """Those that can be used. None: there are only others; then it must encrypt, whoever it is
    (§2.2)."""
    names: tuple[str, ...]
    """For whom a certificate may be that leads to an authority (§3.2.3)."""


async def dane_of(resolver: Resolver, host: Host, domain: str, *, port: int = 25) -> Dane | None:
    """What the TLSA records of an exchange of `domain` ask for; None without any. Raises
    `TlsaUnknown`."""
    for base in await _bases(resolver, host):
        answer = await resolver.query(f"_{port}._tcp.{base}", RecordType.TLSA)
        if answer.status is Status.TEMPORARY:
            raise TlsaUnknown(answer.detail)
        if answer.status is Status.OK and answer.authentic:
            names = dict.fromkeys((base, host.name, domain))
            return Dane(base, usable(_records(answer)[:MAX_RECORDS]), tuple(names))
    return None


async def _bases(resolver: Resolver, host: Host) -> Sequence[str]:
    """The names to look for records at, in their order (§2.2.2): where the host's aliases lead,
    then the host's own."""
    if not host.listed_authentically:
        return ()
    is_alias = host.canonical != host.name
    if host.authentic:
        return (host.canonical, host.name) if is_alias else (host.name,)
    if not is_alias:
        return ()
    # The aliases leave the signed zones somewhere; if not at the first step, the host's own name
    # is still one that can have records.
    first = await resolver.query(host.name, RecordType.CNAME)
    if first.status is Status.TEMPORARY:
        raise TlsaUnknown(first.detail)
    return (host.name,) if first.status is Status.OK and first.authentic else ()


def _records(answer: Answer) -> list[TlsaRecord]:
    return [record for record in answer.records if isinstance(record, TlsaRecord)]
