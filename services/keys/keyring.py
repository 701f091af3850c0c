"""The keys that this process knows, as the store last told: found at once, without any I/O.

What is good stays: an entry that somebody edited to garbage, or removed while its key signed, is
remembered as it was and goes on signing, with its fault known to metrics, logs and answers, until
it is mended or retired. What nobody can read from the start (after a restart), or what the register
says should sign and is not there, is a fault of its domain: such a domain's mail must wait, since
sending it unsigned would be worse.

Belongs to the event loop's thread; `present`, `damaged` and `lost` may be read from any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from services.common.log import ERROR, INFO, WARNING, event
from services.keys.duty import UNKNOWN, Duty
from services.keys.key import Key
from services.keys.known_duties import KnownDuties
from services.keys.signature import Signer
from services.keys.state import KeyState
from services.keys.store import Broken, Complete, Entry, Gone, Lost, News, Register

_log = logging.getLogger(__name__)


class NoUsableKeyError(Exception):
    """The domain's mail is to be signed and no key can do it; the message says why."""


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs for a domain."""

    signers: tuple[Signer, ...] = ()
    """RSA first. Empty: the domain has no key that signs, and never lost one either."""
    faults: tuple[str, ...] = ()
    """What is wrong, be there signers or not."""

    @property
    def must_wait(self) -> bool:
        """Whether the domain's mail should be signed and nobody can."""
        return bool(self.faults) and not self.signers


@dataclass(slots=True)
class _Domain:
    """What is known of one domain."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """By selector."""
    signing: Signing | None = None
    """Worked out when it is first needed."""


class Keyring:
    """All keys, by domain and selector."""

    def __init__(self) -> None:
        self._domains: dict[str, _Domain] = {}
        self._by_name: dict[str, Entry] = {}
        self._by_request: dict[str, Entry] = {}
        self._broken: dict[str, Broken] = {}
        self._faults: dict[str, str] = {}
        """By the names of entries."""
        self.duties = KnownDuties()
        """Which domains' mail has to be signed."""
        self._loaded = asyncio.Event()
        self._change = asyncio.Event()
        self.lost = ""
        """Why the store cannot be read just now; blank if it can."""

    @property
    def loaded(self) -> bool:
        """Whether everything that the store holds was told once."""
        return self._loaded.is_set()

    async def wait_loaded(self) -> None:
        """Return when everything was told once."""
        await self._loaded.wait()

    async def changed(self) -> None:
        """Return after the next news."""
        await self._change.wait()

    def take(self, news: News) -> None:
        """Learn what the store, or a change of our own, tells."""
        # Whoever waits is woken by this; whoever comes later waits for the next.
        self._change.set()
        self._change = asyncio.Event()
        match news:
            case Entry():
                self._put(news)
            case Broken():
                self._break(news)
            case Gone(name):
                self._remove(name)
            case Register():
                for domain in self.duties.take(news):
                    self._told_duty(domain)
            case Complete(names):
                self._complete(names)
            case Lost(reason):
                self.lost = reason

    def take_duty(self, domain: str, duty: Duty) -> None:
        """Learn what was written into the register just now."""
        self.duties.note(domain, duty)
        self._told_duty(domain)

    def find(self, domain: str, selector: str) -> Entry | None:
        """The entry of a key; of a deleted one too."""
        known = self._domains.get(domain)
        return known.entries.get(selector) if known else None

    def made_by(self, request_id: str) -> Entry | None:
        """The entry that a request with this id made."""
        return self._by_request.get(request_id)

    def of_domain(self, domain: str) -> Mapping[str, Entry]:
        """The entries of a domain by selector, deleted ones among them."""
        known = self._domains.get(domain)
        return MappingProxyType(known.entries if known else {})

    def selectors(self, domain: str) -> frozenset[str]:
        """The selectors that were ever used in the domain, for something readable or not."""
        return self.duties.of(domain).selectors | self._in_store(domain)

    def _in_store(self, domain: str) -> frozenset[str]:
        return frozenset(self.of_domain(domain)) | {
            broken.selector for broken in tuple(self._broken.values()) if broken.domain == domain
        }

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain that anything is known of."""
        return tuple(self._domains)

    def concerns(self, domain: str) -> bool:
        """Whether the domain has keys that are not deleted, or should sign."""
        known = self._domains.get(domain)
        entries = tuple(known.entries.values()) if known is not None else ()
        kept = any(entry.key.state is not KeyState.DELETED for entry in entries)
        return kept or (known is not None and self._state(domain, known).must_wait)

    def lost_selectors(self, domain: str) -> frozenset[str]:
        """The selectors of keys that should sign and are not in the store at all."""
        return self.duties.of(domain).signing - self._in_store(domain)

    def due_duty(self, domain: str) -> Duty:
        """What the register should say of a domain, going by its keys."""
        keys = (entry.key for entry in self.of_domain(domain).values())
        return self.duties.of(domain).brought_up_to(keys)

    def unregistered(self) -> list[tuple[str, Duty]]:
        """Of which domains the register should say something else, and what."""
        if self.duties.problem:
            return []
        due = [(domain, self.due_duty(domain)) for domain in self._domains]
        return [(domain, duty) for domain, duty in due if not self.duties.is_kept(domain, duty)]

    def present(self) -> list[Key]:
        """All keys that are not deleted, in the order of domain, creation and selector."""
        keys = [entry.key for entry in tuple(self._by_name.values())]
        kept = [key for key in keys if key.state is not KeyState.DELETED]
        return sorted(kept, key=lambda key: (key.domain, key.created, key.selector))

    def fault(self, key: Key) -> str:
        """What is wrong with the stored form of a key; blank if nothing is."""
        entry = self.find(key.domain, key.selector)
        return self._faults.get(entry.name, "") if entry else ""

    @property
    def damaged(self) -> int:
        """How many entries are broken, or gone although their key signs."""
        lost = sum(len(self.lost_selectors(domain)) for domain, _ in self.duties.domains())
        return len({*self._broken, *self._faults}) + lost + bool(self.duties.problem)

    @property
    def waiting(self) -> dict[str, str]:
        """The domains whose mail has to be signed and cannot be, and why."""
        found = [(domain, self._state(domain, known)) for domain, known in self._all_domains()]
        return {domain: "; ".join(each.faults) for domain, each in found if each.must_wait}

    @property
    def broken(self) -> Collection[Broken]:
        """What is in the store and cannot be read."""
        return self._broken.values()

    def signing(self, domain: str) -> Signing:
        """Who signs for `domain`. Raises `NoUsableKeyError`."""
        known = self._domains.get(domain)
        found = self._state(domain, known) if known is not None else _NOBODY
        if found.must_wait:
            raise NoUsableKeyError("; ".join(found.faults))
        if not found.signers and self.duties.problem and domain not in self.duties:
            raise NoUsableKeyError(f"nobody knows whether it has keys: {self.duties.problem}")
        return found

    def _all_domains(self) -> tuple[tuple[str, _Domain], ...]:
        return tuple(self._domains.items())

    def _state(self, domain: str, known: _Domain) -> Signing:
        if known.signing is None:
            known.signing = self._work_out(domain, known)
        return known.signing

    def _work_out(self, domain: str, known: _Domain) -> Signing:
        entries = tuple(known.entries.values())
        active = [entry for entry in entries if entry.key.state is KeyState.ACTIVE]
        active.sort(key=lambda entry: (entry.key.key_type != "rsa", entry.key.selector))
        signers = tuple(
            Signer(domain, entry.key.selector, entry.private)
            for entry in active
            if entry.private is not None
        )
        faults = [self._faults[e.name] for e in active if e.name in self._faults]
        broken = [
            each
            for each in tuple(self._broken.values())
            if each.domain == domain and each.name not in self._by_name
        ]
        faults += [f"{each.name}: {each.reason}" for each in broken]
        missing = self.duties.of(domain).missing(entry.key for entry in entries)
        missing -= {each.selector for each in broken}
        faults += [_missing(selector, known.entries.get(selector)) for selector in sorted(missing)]
        return Signing(signers, tuple(faults))

    def _put(self, entry: Entry) -> None:
        before = self._by_name.get(entry.name)
        if before is not None and before.key.revision > entry.key.revision:
            return  # news from before our own last change
        mended = entry.name in self._broken or entry.name in self._faults
        self._broken.pop(entry.name, None)
        self._faults.pop(entry.name, None)
        if before is not None and before.key.id != entry.key.id:
            self._drop(before)
        self._by_name[entry.name] = entry
        domain = self._domains.setdefault(entry.key.domain, _Domain())
        domain.entries[entry.key.selector] = entry
        if entry.key.request_id:
            self._by_request[entry.key.request_id] = entry
        self._changed(entry.key.domain)
        if mended:
            event(_log, INFO, "stored key is good again", entry=entry.name)

    def _break(self, broken: Broken) -> None:
        before = self._by_name.get(broken.name)
        if self._broken.get(broken.name) == broken:
            return
        self._broken[broken.name] = broken
        if before is not None:
            self._faults[broken.name] = f"{broken.name}: {broken.reason}"
        domain = before.key.domain if before else broken.domain
        event(
            _log,
            ERROR,
            "stored key cannot be read",
            entry=broken.name,
            domain=domain,
            reason=broken.reason,
            goes_on_with="what was read before" if before else "nothing",
        )
        if domain:
            self._domains.setdefault(domain, _Domain())
            self._changed(domain)

    def _remove(self, name: str) -> None:
        broken = self._broken.pop(name, None)
        entry = self._by_name.get(name)
        if entry is None:
            if broken is not None:
                self._changed(broken.domain)
        elif entry.key.state is not KeyState.ACTIVE:
            self._drop(entry)
            event(_log, WARNING, "stored key was removed", entry=name, state=entry.key.state)
        elif name not in self._faults or broken is not None:
            self._faults[name] = f"{name} was removed"
            self._changed(entry.key.domain)
            event(
                _log,
                ERROR,
                "stored key was removed while it signs; restore it, or retire it",
                entry=name,
                domain=entry.key.domain,
                selector=entry.key.selector,
            )

    def _complete(self, names: frozenset[str]) -> None:
        self.lost = ""
        for name in (self._by_name.keys() | self._broken.keys()) - names:
            self._remove(name)
        if not self._loaded.is_set():
            self._loaded.set()
            event(_log, INFO, "keys loaded", keys=len(self._by_name), broken=len(self._broken))

    def _told_duty(self, domain: str) -> None:
        """The duty of a domain is another one."""
        known = self._domains.setdefault(domain, _Domain())
        given_up = self.duties.of(domain).given_up & known.entries.keys()
        for selector in given_up:
            entry = known.entries[selector]
            if entry.name in self._faults and entry.name not in self._broken:
                # Only our memory has it: nobody waits for it to come back any more.
                self._drop(entry)
                event(_log, WARNING, "a lost key was given up", domain=domain, selector=selector)
        self._changed(domain)

    def _drop(self, entry: Entry) -> None:
        self._by_name.pop(entry.name, None)
        self._faults.pop(entry.name, None)
        self._domains[entry.key.domain].entries.pop(entry.key.selector, None)
        if self._by_request.get(entry.key.request_id) == entry:
            del self._by_request[entry.key.request_id]
        self._changed(entry.key.domain)

    def _changed(self, domain: str) -> None:
        known = self._domains.get(domain)
        if known is not None:
            known.signing = None


def _missing(selector: str, entry: Entry | None) -> str:
    """Why a key does not sign that should."""
    if selector == UNKNOWN:
        return "what the register of the domains that sign says of it is no list of selectors"
    if entry is None:
        return f"the key {selector} is not in the store any more"
    return f"the key {selector} signed and is {entry.key.state} now: activate it, or another"


_NOBODY = Signing()
