"""What a domain should publish, beside what it does: `proposal` compared with the live DNS.

Asked of the resolver, with its cache: whether a key's record is at every authoritative server is
another question, which `publication` answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.common.config.model import Config
from services.common.dns import MxRecord, RecordType, Resolver, Status, addresses, txt
from services.common.mail.printable import one_line
from services.keys.keyring import Keyring
from services.keys.proposal import Proposal, Site, proposals

MAX_SHOWN_VALUES: Final = 20
MAX_SHOWN_OCTETS: Final = 2000
_MAX_PARENTS: Final = 3


@dataclass(frozen=True, slots=True)
class Advice:
    """A proposal and what is there."""

    proposal: Proposal
    current: tuple[str, ...] = ()
    satisfied: bool = False
    error: str = ""
    """What went wrong when the live record was looked up; blank if nothing did."""


class DnsAdviser:
    """Compares what is there with what should be."""

    def __init__(
        self,
        keyring: Keyring,
        resolver: Resolver,
        config: Callable[[], Config],
        now: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._resolver = resolver
        self._config = config
        self._now = now

    async def advise(self, domain: str) -> list[Advice]:
        """One piece of advice for each record that the domain should have; raises nothing."""
        keys = [key for key in self._keyring.present() if key.domain == domain]
        site = await self._site(domain)
        wanted = proposals(domain, keys, site, today=self._now().date())
        return list(await asyncio.gather(*(self._compare(each) for each in wanted)))

    def notes(self, domain: str) -> list[str]:
        """What there is to say of a domain that nothing here is about; nothing of all others."""
        config = self._config()
        named = {*config.domains.local, *config.domains.relay, *config.delivery.sender_smarthosts}
        known = named | set(filter(self._keyring.concerns, self._keyring.domains))
        if domain in known:
            return []
        shown = sorted(known)[:MAX_SHOWN_VALUES]
        more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
        note = (
            f"{domain} is not in domains.local, domains.relay or delivery.sender_smarthosts, and"
            " has no key: name it there, or make a key for it if its mail only leaves from here;"
            f" known are {', '.join(shown) or 'no domains'}{more}"
        )
        return [note]

    async def _site(self, domain: str) -> Site:
        config = self._config()
        found = await addresses(self._resolver, config.smtp.hostname)
        delivery = config.delivery
        smarthost = delivery.sender_smarthosts.get(domain, delivery.smarthost)
        include = smarthost.spf_include
        if smarthost.host and not include:
            include = await self._find_include(smarthost.host)
        return Site(
            hostname=config.smtp.hostname,
            addresses=found.records,
            receives=domain in config.domains.local or domain in config.domains.relay,
            smarthost=smarthost.host,
            spf_include=include,
        )

    async def _find_include(self, host: str) -> str:
        """The nearest domain at or above the smarthost with an SPF record; blank if none has."""
        labels = host.split(".")
        for skipped in range(min(_MAX_PARENTS, max(0, len(labels) - 1))):
            domain = ".".join(labels[skipped:])
            if any(each.startswith(b"v=spf1 ") for each in (await self._texts(domain))[0]):
                return domain
        return ""

    async def _compare(self, proposal: Proposal) -> Advice:
        found, error = await self._live(proposal.name, proposal.rdtype)
        current = tuple(value for value in found if not proposal.beside(value))
        if error or proposal.suffices(current):
            return Advice(proposal, current, not error, error)
        if better := proposal.amended(current):
            proposal = replace(proposal, value=better)
        for name in proposal.inherited_from:
            above, error = await self._live(name, proposal.rdtype)
            if error or proposal.suffices(above):
                shown = tuple(f"{value} (from {name})" for value in above)
                return Advice(proposal, shown, not error, error)
        return Advice(proposal, current)

    async def _live(self, name: str, rdtype: str) -> tuple[tuple[str, ...], str]:
        """The values that are there, and what went wrong."""
        if rdtype == "MX":
            answer = await self._resolver.query(name, RecordType.MX)
            exchanges = [each for each in answer.records if isinstance(each, MxRecord)]
            values = [f"{each.preference} {each.exchange}" for each in exchanges]
            error = answer.detail if answer.status is Status.TEMPORARY else ""
        else:
            texts, error = await self._texts(name)
            values = [text.decode("ascii", "backslashreplace") for text in texts]
        return tuple(_shown(values)), error

    async def _texts(self, name: str) -> tuple[tuple[bytes, ...], str]:
        found = await txt(self._resolver, name)
        return found.records, found.detail if found.status is Status.TEMPORARY else ""


def _shown(values: list[str]) -> Iterator[str]:
    """The values as they may stand in an answer; strangers wrote them."""
    for value in values[:MAX_SHOWN_VALUES]:
        yield one_line(value, limit=MAX_SHOWN_OCTETS)
