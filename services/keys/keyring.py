"""The keys that this process knows, as the store last told: found at once, without any I/O.

What is good stays: an entry that somebody edited to garbage, or removed while its key signed, is
remembered as it was and goes on signing, with its fault known to metrics, logs and answers, until
it is mended or retired. What nobody can read from the start (after a restart) is remembered as a
fault of its domain: such a domain's mail must wait, since sending it unsigned would be worse.

Belongs to the event loop's thread; `present`, `damaged` and `lost` may be read from any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from services.common.log import ERROR, INFO, WARNING, event
from services.keys.key import Key
from services.keys.signature import Signer
from services.keys.state import KeyState
from services.keys.store import Broken, Complete, Entry, Gone, Lost, News

_log = logging.getLogger(__name__)


class NoUsableKeyError(Exception):
    """The domain's mail is to be signed and no key can do it; the message says why."""


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs for a domain."""

    signers: tuple[Signer, ...] = ()
    """RSA first. Empty: the domain has no key that signs, and never lost one either."""
    faults: tuple[str, ...] = ()
    """What is wrong although there are signers."""


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
            case Complete(names):
                self._complete(names)
            case Lost(reason):
                self.lost = reason

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
        return frozenset(self.of_domain(domain)) | {
            broken.selector for broken in self._broken.values() if broken.domain == domain
        }

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
        """How many entries are broken, or gone while their key signs."""
        return len({*self._broken, *self._faults})

    @property
    def broken(self) -> Collection[Broken]:
        """What is in the store and cannot be read."""
        return self._broken.values()

    def signing(self, domain: str) -> Signing:
        """Who signs for `domain`. Raises `NoUsableKeyError`."""
        known = self._domains.get(domain)
        if known is None:
            return _NOBODY
        if known.signing is None:
            known.signing = self._work_out(domain, known)
        if known.signing.faults and not known.signing.signers:
            raise NoUsableKeyError("; ".join(known.signing.faults))
        return known.signing

    def _work_out(self, domain: str, known: _Domain) -> Signing:
        active = [e for e in known.entries.values() if e.key.state is KeyState.ACTIVE]
        active.sort(key=lambda entry: (entry.key.key_type != "rsa", entry.key.selector))
        signers = tuple(
            Signer(domain, entry.key.selector, entry.private)
            for entry in active
            if entry.private is not None
        )
        faults = [self._faults[e.name] for e in active if e.name in self._faults]
        faults += [
            f"{broken.name}: {broken.reason}"
            for broken in self._broken.values()
            if broken.domain == domain and broken.name not in self._by_name
        ]
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


_NOBODY = Signing()
