"""The DNS records that a domain should publish, and whether those that are there will do. Pure.

MX (RFC 5321 §5.1), SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989), MTA-STS (RFC 8461 §3.1),
TLSRPT (RFC 8460 §3). A record that is there is judged as those who read it do. What cannot be known
from here (which addresses mail leaves from, behind somebody else's `include`) is not objected to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from services.keys import key_record
from services.keys.key import Key
from services.keys.state import KeyState

PREFERENCE: Final = 10

_SHOULD_BE_THERE: Final = frozenset(
    {KeyState.PENDING, KeyState.PUBLISHED, KeyState.ACTIVE, KeyState.RETIRING}
)
_STS: Final = re.compile(r"v=STSv1\s*;(.*;)?\s*id=[A-Za-z0-9]{1,32}\s*;?(.*)", re.ASCII)
_TLSRPT: Final = re.compile(r"v=TLSRPTv1\s*;\s*rua=.+", re.ASCII)
_DMARC: Final = re.compile(r"v\s*=\s*DMARC1\s*(;.*)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What of this installation, and of its surroundings, the records depend on."""

    hostname: str
    """The name that we go by."""
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    """Those of that name."""
    receives: bool = True
    """Whether the domain's mail comes to us."""
    smarthost: str = ""
    """What outgoing mail goes through; blank if it leaves from here."""
    spf_include: str = ""
    """What the smarthost's provider wants included; blank if that is not known."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A record that should be there."""

    name: str
    rdtype: str
    value: str
    purpose: str
    """For people: why, and what else it needs."""
    suffices: Callable[[Sequence[str]], bool]
    """Whether values that are there will do."""
    inherited_from: tuple[str, ...] = ()
    """Where the record may stand as well, nearest first."""
    beside: Callable[[str], bool] = lambda _: False
    """Whether a value that is there serves another purpose, as many a TXT record does."""
    amended: Callable[[Sequence[str]], str] = lambda _: ""
    """What to make of the values that are there, so that what they say is kept; blank: the value
    as it stands."""

    @property
    def zone_file(self) -> str:
        """In zone-file form."""
        if self.rdtype == "TXT":
            return key_record.zone_file(self.name, self.value)
        return f"{self.name}. IN {self.rdtype} {self.value}."


def proposals(domain: str, keys: Iterable[Key], site: Site, *, today: date) -> list[Proposal]:
    """All records for a domain; `keys` are its keys."""
    wanted = [_mx(domain, site)] if site.receives else []
    wanted.append(_spf(domain, site))
    wanted += _dkim(keys)
    wanted.append(_dmarc(domain))
    if site.receives:
        wanted += [_mta_sts(domain, site, today), _tlsrpt(domain)]
    return wanted


def _mx(domain: str, site: Site) -> Proposal:
    def suffices(values: Sequence[str]) -> bool:
        return any(value.split()[-1].rstrip(".").lower() == site.hostname for value in values)

    return Proposal(
        domain,
        "MX",
        f"{PREFERENCE} {site.hostname}",
        f"MX: mail for {domain} comes to {site.hostname}",
        suffices,
    )


def _dkim(keys: Iterable[Key]) -> Iterator[Proposal]:
    for key in keys:
        if key.state not in _SHOULD_BE_THERE:
            continue

        def suffices(values: Sequence[str], key: Key = key) -> bool:
            return not key_record.objection(key, [value.encode() for value in values])

        yield Proposal(
            key.record_name,
            "TXT",
            key_record.value(key),
            f"DKIM: the public key that verifies signatures with the selector {key.selector}"
            f" ({key.state})",
            suffices,
        )


def _spf(domain: str, site: Site) -> Proposal:
    if not site.smarthost:
        value = f"v=spf1 a:{site.hostname} -all"
        purpose = (
            f"SPF: mail from {domain} leaves from the addresses of {site.hostname}; add the"
            " addresses that it really leaves from, if they are others"
        )
    elif site.spf_include:
        value = f"v=spf1 a include:{site.spf_include} -all"
        purpose = f"SPF: mail from {domain} leaves through {site.smarthost}"
    else:
        value = "v=spf1 a ?all"
        purpose = (
            f"SPF: mail from {domain} leaves through {site.smarthost}; ask its provider what to"
            " include, set delivery.smarthost.spf_include, and look here again"
        )

    def suffices(values: Sequence[str]) -> bool:
        return len(values) == 1 and _permits(values[0], domain, site)

    def amended(values: Sequence[str]) -> str:
        return _with_term(values[0], wanted) if len(values) == 1 and wanted else ""

    wanted = f"include:{site.spf_include}" if site.spf_include else ""
    if not site.smarthost:
        wanted = f"a:{site.hostname}"
    return Proposal(
        domain,
        "TXT",
        value,
        purpose,
        suffices,
        beside=lambda value: not _is_spf(value),
        amended=amended,
    )


def _with_term(record: str, term: str) -> str:
    """The record with one more mechanism, first of all, so that none before it can deny it."""
    version, *terms = record.split()
    return " ".join([version, term, *terms])


def _is_spf(value: str) -> bool:
    return value.lower() == "v=spf1" or value.lower().startswith("v=spf1 ")


def _permits(record: str, domain: str, site: Site) -> bool:
    """Whether the record lets our mail through, as far as can be seen in it."""
    terms = [term.removeprefix("+") for term in record.lower().split()[1:]]
    if site.smarthost:
        return not site.spf_include or f"include:{site.spf_include.lower()}" in terms
    elsewhere = ("include:", "redirect=", "exists:", "mx", "ptr")
    return any(
        term.startswith(elsewhere)
        or term == f"a:{site.hostname}"
        or (term == "a" and domain == site.hostname)
        or _covers(term, site)
        for term in terms
    )


def _covers(term: str, site: Site) -> bool:
    """Whether an `ip4` or `ip6` term has one of our addresses in it."""
    kind, _, text = term.partition(":")
    if kind not in ("ip4", "ip6"):
        return False
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return False
    return any(address in network for address in site.addresses)


def _dmarc(domain: str) -> Proposal:
    def suffices(values: Sequence[str]) -> bool:
        return sum(_DMARC.fullmatch(value) is not None for value in values) == 1

    labels = domain.split(".")
    parents = (".".join(labels[skipped:]) for skipped in range(1, len(labels) - 1))
    return Proposal(
        f"_dmarc.{domain}",
        "TXT",
        f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}",
        "DMARC: what receivers do with mail that is neither signed nor sent by you; begin with"
        " p=none, read the reports, then go on to p=quarantine and p=reject",
        suffices,
        tuple(f"_dmarc.{parent}" for parent in parents),
    )


def _mta_sts(domain: str, site: Site, today: date) -> Proposal:
    def suffices(values: Sequence[str]) -> bool:
        return sum(_STS.fullmatch(value) is not None for value in values) == 1

    return Proposal(
        f"_mta-sts.{domain}",
        "TXT",
        f"v=STSv1; id={today:%Y%m%d}",
        "MTA-STS: others must use TLS to send you mail; it needs a policy at"
        f" https://mta-sts.{domain}/.well-known/mta-sts.txt with the lines: version: STSv1,"
        f" mode: testing, mx: {site.hostname}, max_age: 604800; a new id whenever the policy"
        " changes",
        suffices,
    )


def _tlsrpt(domain: str) -> Proposal:
    def suffices(values: Sequence[str]) -> bool:
        return sum(_TLSRPT.fullmatch(value) is not None for value in values) == 1

    return Proposal(
        f"_smtp._tls.{domain}",
        "TXT",
        f"v=TLSRPTv1; rua=mailto:postmaster@{domain}",
        "TLSRPT: others report when they could not send you mail over TLS",
        suffices,
    )
