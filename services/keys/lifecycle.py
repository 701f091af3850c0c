"""What is done to a key after it was made: look for its record, activate, retire, delete.

`state` says which steps there are; this module finds out whether their conditions hold, keeps the
result, and tells about it in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from services.common.dns import Authority
from services.common.log import ERROR, INFO, WARNING, event
from services.common.rpc.errors import failed_precondition, not_found
from services.keys.duty_writer import DutyWriter
from services.keys.failure import store_failures
from services.keys.key import Key, whole_seconds
from services.keys.keyring import Keyring
from services.keys.publication import Publication, check
from services.keys.state import ForbiddenStepError, KeyState, Step
from services.keys.store import Entry, KeyStore

_log = logging.getLogger(__name__)


class Lifecycle:
    """Changes keys. Every method raises `RpcFailure`."""

    def __init__(
        self,
        store: KeyStore,
        keyring: Keyring,
        authority: Authority,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self.duties = DutyWriter(store, keyring)
        self._authority = authority
        self._now = now
        self._changing = asyncio.Lock()
        """Held from reading a key to keeping its next state, so that an operator's wish and our own
        looking after keys do not meet. Other replicas are met by the versions of entries."""
        self.visible: dict[tuple[str, str], bool] = {}
        """By domain and selector, for keys that sign: whether the record was visible at the last
        look that gave a definite answer."""

    def entry(self, domain: str, selector: str) -> Entry:
        """The entry of a key that is not deleted."""
        entry = self._keyring.find(domain, selector)
        if entry is None or entry.key.state is KeyState.DELETED:
            raise not_found(
                f"{domain} has no key with the selector {selector}", reason="KEY_NOT_FOUND"
            )
        return entry

    async def publication(self, domain: str, selector: str) -> tuple[Key, Publication]:
        """Look for the record of a key now, and remember that it was seen."""
        entry = self.entry(domain, selector)
        found = await self._look(entry.key)
        async with self._changing:
            entry = self.entry(domain, selector)
            if found.visible and not self._keyring.fault(entry.key):
                return await self._step(entry, Step.SEEN), found
        return entry.key, found

    async def observe(self, key: Key) -> None:
        """Look for the record of a key, and keep what follows from it."""
        found = await self._look(key)
        async with self._changing:
            entry = self._keyring.find(key.domain, key.selector)
            if entry is None or entry.key.state is not key.state or self._keyring.fault(key):
                return  # things have moved on meanwhile
            if found.visible:
                await self._step(entry, Step.SEEN)
            elif found.denied:
                await self._step(entry, Step.UNSEEN)

    async def _look(self, key: Key) -> Publication:
        found = await check(self._authority, key)
        if key.state is KeyState.ACTIVE:
            self._note(key, found)
        return found

    def _note(self, key: Key, found: Publication) -> None:
        """Remember what was found of a key that signs; silent servers change nothing."""
        if not found.visible and not found.denied:
            return
        before = self.visible.get(key.id)
        self.visible[key.id] = found.visible
        if before and not found.visible:
            event(
                _log,
                ERROR,
                "a key signs and its record is no longer visible everywhere",
                domain=key.domain,
                selector=key.selector,
                missing=found.summary,
            )

    async def end_retirement(self, key: Key) -> None:
        """Nothing that the key signed can be under way any more."""
        async with self._changing:
            await self._step(self.entry(key.domain, key.selector), Step.AGED)

    async def activate(self, domain: str, selector: str, *, override: bool) -> Key:
        """Let a key sign, if its record is visible everywhere or somebody takes the blame."""
        entry = self.entry(domain, selector)
        if entry.key.state is KeyState.ACTIVE:
            return entry.key
        step = Step.ACTIVATE_UNSEEN if override else Step.ACTIVATE
        self._check(entry, step)
        found = await self._look(entry.key)
        if found.visible:
            return await self._begin(domain, selector, Step.ACTIVATE, found)
        if not override:
            raise failed_precondition(
                f"the record {entry.key.record_name} is not visible everywhere: {found.summary}",
                reason="RECORD_NOT_VISIBLE",
            )
        event(
            _log,
            WARNING,
            "key activated although its record is not visible everywhere",
            domain=domain,
            selector=selector,
            missing=found.summary,
        )
        return await self._begin(domain, selector, Step.ACTIVATE_UNSEEN, found)

    async def _begin(self, domain: str, selector: str, step: Step, found: Publication) -> Key:
        async with self._changing:
            # Read again: while the servers were asked, the key may have been seen to be published.
            entry = self.entry(domain, selector)
            if entry.key.state is not KeyState.ACTIVE:
                self._check(entry, step)
                await self._step(entry, step)
        key = self.entry(domain, selector).key
        self._note(key, found)
        return key

    async def retire(self, domain: str, selector: str, *, leave_unsigned: bool) -> Key | None:
        """Let a key sign no more; None for one that is lost, which is given up."""
        # Two at the same moment would each rely on the other to go on signing.
        async with self._changing:
            return await self._retire(domain, selector, leave_unsigned=leave_unsigned)

    async def _retire(self, domain: str, selector: str, *, leave_unsigned: bool) -> Key | None:
        if selector in self._keyring.lost_selectors(domain):
            await self._give_up(domain, selector, leave_unsigned=leave_unsigned)
            return None
        entry = self.entry(domain, selector)
        self._check_state(entry, Step.RETIRE)
        other = self._goes_on(domain, selector)
        if other is None:
            return await self._retire_last(entry, leave_unsigned=leave_unsigned)
        if entry.key.state is KeyState.ACTIVE:
            await self._rely_on(other, leave_unsigned=leave_unsigned)
        with store_failures():
            # First, so that the others are in the register when this one is out of it.
            await self.duties.strike(domain, selector)
        return await self._step(entry, Step.RETIRE)

    async def _rely_on(self, other: Entry, *, leave_unsigned: bool) -> None:
        """Have nobody retire the key that goes on signing who does not know that we rely on it.

        Of two replicas that retire a key each, relying on that of the other, one at least meets a
        version that it does not know: each writes the key of the other first and its own then.
        """
        fault = self._keyring.fault(other.key)
        if not fault:
            with store_failures():
                self._keyring.take(await self._store.update(other, other.key.relied_on()))
        elif not leave_unsigned:
            raise failed_precondition(
                f"the key {other.key.selector}, which would go on signing, is damaged ({fault}):"
                " restore it, activate another, or say leave_unsigned",
                reason="KEY_DAMAGED",
            )

    async def _retire_last(self, entry: Entry, *, leave_unsigned: bool) -> Key:
        domain = entry.key.domain
        if not leave_unsigned and self._must_sign(entry.key):
            raise _last_key(domain)
        signs = entry.key.state is KeyState.ACTIVE
        key = await self._step(entry, Step.RETIRE)
        # Also when it is asked for again, because the first time it came to nothing.
        if leave_unsigned and (signs or self._keyring.duties.of(domain).signing):
            await self._leave_unsigned(domain)
        return key

    async def _give_up(self, domain: str, selector: str, *, leave_unsigned: bool) -> None:
        if self._others_sign(domain, selector):
            with store_failures():
                await self.duties.strike(domain, selector, is_lost=True)
        elif leave_unsigned:
            await self._leave_unsigned(domain)
        else:
            raise _last_key(domain)
        event(_log, WARNING, "a lost key was given up", domain=domain, selector=selector)

    async def _leave_unsigned(self, domain: str) -> None:
        with store_failures():
            await self.duties.end(domain)
        event(_log, WARNING, "mail is unsigned from now on", domain=domain)

    async def delete(self, domain: str, selector: str) -> None:
        """Destroy a key; its selector stays used."""
        async with self._changing:
            entry = self.entry(domain, selector)
            self._check(entry, Step.DELETE)
            if self._must_sign(entry.key) and not self._others_sign(domain, selector):
                raise _last_key(domain)
            await self._step(entry, Step.DELETE)

    def _must_sign(self, key: Key) -> bool:
        """Whether mail would wait, or go out unsigned, without this key."""
        duty = self._keyring.duties.of(key.domain)
        return key.state is KeyState.ACTIVE or key.selector in duty.missing([key])

    def _others_sign(self, domain: str, selector: str) -> bool:
        return self._goes_on(domain, selector) is not None

    def _goes_on(self, domain: str, selector: str) -> Entry | None:
        """Another key that signs, whose stored form is good if there is such a one."""
        others = [
            entry
            for entry in self._keyring.of_domain(domain).values()
            if entry.key.state is KeyState.ACTIVE and entry.key.selector != selector
        ]
        return min(
            others,
            key=lambda entry: (bool(self._keyring.fault(entry.key)), entry.key.selector),
            default=None,
        )

    def _check(self, entry: Entry, step: Step) -> None:
        """Refuse before anything is asked of anybody."""
        fault = self._keyring.fault(entry.key)
        if fault:
            raise failed_precondition(
                f"the stored key is damaged ({fault}); restore it from a backup, or retire it",
                reason="KEY_DAMAGED",
            )
        self._check_state(entry, step)

    def _check_state(self, entry: Entry, step: Step) -> None:
        try:
            entry.key.stepped(step, self._now())
        except ForbiddenStepError as error:
            raise failed_precondition(str(error), reason="WRONG_STATE") from error

    async def _step(self, entry: Entry, step: Step) -> Key:
        """Take the step and keep what comes of it."""
        try:
            key = entry.key.stepped(step, whole_seconds(self._now()))
        except ForbiddenStepError as error:
            raise failed_precondition(str(error), reason="WRONG_STATE") from error
        if key is entry.key:
            return key
        if key.state is not KeyState.ACTIVE:
            self.visible.pop(key.id, None)
        with store_failures():
            if self._keyring.fault(entry.key):
                # What ceases to sign is put in order on the way; no other step gets here.
                kept = await self._store.restore(entry, key)
            elif key.state is KeyState.DELETED:
                kept = await self._store.erase(entry, key)
            else:
                kept = await self._store.update(entry, key)
        self._keyring.take(kept)
        await self.duties.follow(key.domain)
        event(
            _log,
            INFO,
            "key changed its state",
            domain=key.domain,
            selector=key.selector,
            was=entry.key.state,
            state=key.state,
        )
        return kept.key


def _last_key(domain: str) -> Exception:
    return failed_precondition(
        f"no other key signs for {domain}: activate one first, or say leave_unsigned to have its"
        " mail go out unsigned",
        reason="LAST_ACTIVE_KEY",
    )
