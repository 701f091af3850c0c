"""Keeps the register of the domains whose mail has to be signed in step with their keys.

Which comes first, the key's state or the line in the register, is so chosen that a process that
dies in between leaves the domain signed: what is missing in the register is added in the next round
of upkeep, and what is too much there makes mail wait, with an error that says how to go on.
Replicas write whole lines; should one overwrite another's, upkeep puts it right as well.
"""

from __future__ import annotations

import logging

from services.common.log import WARNING, event
from services.keys.duty import Duty
from services.keys.keyring import Keyring
from services.keys.store import KeyStore, StoreUnavailableError

_log = logging.getLogger(__name__)


class DutyWriter:
    """Changes the register. Methods raise `StoreUnavailableError` unless they say otherwise."""

    def __init__(self, store: KeyStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    async def bring_up_to_date(self) -> None:
        """Write what the states of the keys say and the register does not; raises nothing."""
        for domain, duty in self._keyring.unregistered():
            if not await self._tried(domain, duty):
                return  # the next round tries again

    async def follow(self, domain: str) -> None:
        """A key of the domain has changed its state; raises nothing."""
        duty = self._keyring.due_duty(domain)
        if not self._keyring.duties.is_kept(domain, duty):
            await self._tried(domain, duty)

    async def strike(self, domain: str, selector: str, *, is_lost: bool = False) -> None:
        """One key will sign no more, and others go on."""
        await self._write(domain, self._keyring.due_duty(domain).without(selector, is_lost=is_lost))

    async def end(self, domain: str) -> None:
        """The domain's mail may go out unsigned."""
        keys = (entry.key for entry in self._keyring.of_domain(domain).values())
        await self._write(domain, self._keyring.duties.of(domain).ended(keys))

    async def _tried(self, domain: str, duty: Duty) -> bool:
        try:
            await self._write(domain, duty)
        except StoreUnavailableError as error:
            text = "the register of the domains that sign cannot be written"
            event(_log, WARNING, text, domain=domain, reason=str(error))
            return False
        return True

    async def _write(self, domain: str, duty: Duty) -> None:
        if self._keyring.duties.is_kept(domain, duty):
            return
        await self._store.register(domain, duty)
        self._keyring.take_duty(domain, duty)
