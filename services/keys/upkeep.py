"""The task that looks after keys while nobody watches: publication, expiry, the end of retirement.

Every round it asks the DNS about the records of keys that wait to be published, now and then about
those of keys that sign, and does what `upkeep_plan` says is due. Every replica runs it; what one
has done the others see in the store, and what two try at once the store lets one of them do.

Guarantees: a key that cannot be looked after (a damaged one, a DNS that is away) keeps none of the
others from it, and never ends the process: signing goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from services.common.log import ERROR, INFO, WARNING, event
from services.common.rpc.errors import RpcFailure
from services.keys import key_record
from services.keys.create import KeyMaker, NewKey
from services.keys.key import Key
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.state import KeyState
from services.keys.upkeep_plan import Chore, Due, due

MAX_CONCURRENT_LOOKS: Final = 8
"""Each asks all servers of a zone."""
FRESH: Final = timedelta(days=1)
"""So long somebody is probably about to publish a new key's record; after it, hurry is gone."""
ROUNDS_BETWEEN_LOOKS: Final = 10
"""For keys of which no news is expected."""
REMINDER: Final = timedelta(hours=1)
"""Between two lines about the same expired key, or the same domain whose mail waits."""

_log = logging.getLogger(__name__)


class Upkeep:
    """Looks after all keys."""

    def __init__(
        self,
        keyring: Keyring,
        maker: KeyMaker,
        lifecycle: Lifecycle,
        now: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._maker = maker
        self._lifecycle = lifecycle
        self._now = now
        self._round = 0
        self._reminded: dict[tuple[str, str], datetime] = {}
        """By domain and selector; a blank selector is for the domain as such."""
        self._looking = asyncio.Semaphore(MAX_CONCURRENT_LOOKS)

    async def run(
        self, interval: Callable[[], timedelta], queue_age: Callable[[], timedelta]
    ) -> None:
        """A round, and a rest of `interval`, for ever; the settings are read anew each time."""
        await self._keyring.wait_loaded()
        while True:
            await self.once(queue_age())
            await asyncio.sleep(interval().total_seconds())

    async def once(self, queue_age: timedelta) -> None:
        """One round. `queue_age` is how old mail in our queue can become."""
        await self._lifecycle.duties.bring_up_to_date()
        self._remind_of_waiting()
        await self._look_at(self._keyring.present())
        for _, keys in groupby(self._keyring.present(), key=lambda key: key.domain):
            for each in due(keys, now=self._now(), queue_age=queue_age):
                await self._guarded(each.key, self._do(each))
        self._round += 1

    async def _look_at(self, keys: Iterable[Key]) -> None:
        looks = [self._guarded(key, self._look(key)) for key in keys if self._wants_look(key)]
        await asyncio.gather(*looks)

    def _wants_look(self, key: Key) -> bool:
        if key.state not in (KeyState.PENDING, KeyState.PUBLISHED, KeyState.ACTIVE):
            return False
        if key.state is KeyState.PENDING and self._now() - key.created < FRESH:
            return True
        if self._lifecycle.visible.get(key.id) is False:
            return True
        return self._round % ROUNDS_BETWEEN_LOOKS == 0

    async def _look(self, key: Key) -> None:
        async with self._looking:
            await self._lifecycle.observe(key)

    async def _guarded(self, key: Key, work: Awaitable[None]) -> None:
        try:
            await work
        except RpcFailure as failure:
            # The store is away, or another replica did it first: the next round knows more.
            event(
                _log,
                INFO,
                "upkeep of a key is put off",
                domain=key.domain,
                selector=key.selector,
                reason=failure.text,
            )
        except Exception:  # noqa: BLE001 - one key must not end the care for the others
            event(
                _log,
                ERROR,
                "upkeep of a key failed",
                domain=key.domain,
                selector=key.selector,
                exc_info=True,
            )

    async def _do(self, task: Due) -> None:
        match task.chore:
            case Chore.MAKE_SUCCESSOR:
                await self._make_successor(task.key)
            case Chore.TAKE_OVER if task.successor is not None:
                await self._take_over(task.key, task.successor)
            case Chore.RETIRE_EXPIRED:
                await self._retire(task.key)
            case Chore.MOURN:
                self._remind(task.key, task.successor)
            case Chore.END_RETIREMENT:
                await self._lifecycle.end_retirement(task.key)

    async def _make_successor(self, key: Key) -> None:
        wanted = NewKey(
            domain=key.domain,
            key_type=key.key_type,
            bits=key.bits,
            expiry=key.lifetime,
            request_id=self._successor_request(key),
            predecessor=key.selector,
        )
        successor = await self._maker.create(wanted)
        event(
            _log,
            WARNING,
            "a key expires: publish the record of its successor",
            domain=key.domain,
            selector=key.selector,
            expires=key.expires,
            successor=successor.selector,
            record_name=successor.record_name,
            record_value=key_record.value(successor),
        )

    def _successor_request(self, key: Key) -> str:
        """The same in every replica that sees the same keys, so that they make one successor.

        Another one after each that was made and given up.
        """
        known = self._keyring.of_domain(key.domain).values()
        number = sum(entry.key.predecessor == key.selector for entry in known)
        whole = f"{key.record_name} {number}"
        return f"successor-{hashlib.sha256(whole.encode()).hexdigest()[:32]}"

    async def _take_over(self, key: Key, successor: Key) -> None:
        try:
            await self._lifecycle.activate(successor.domain, successor.selector, override=False)
        except RpcFailure as failure:
            if failure.reason != "RECORD_NOT_VISIBLE":
                raise
            return  # the expired key goes on, and a reminder says so
        await self._retire(key)

    async def _retire(self, key: Key) -> None:
        await self._lifecycle.retire(key.domain, key.selector, leave_unsigned=False)
        self._reminded.pop(key.id, None)

    def _remind_of_waiting(self) -> None:
        """Tell, every hour, whose mail waits for a key."""
        waiting = self._keyring.waiting
        for domain, why in waiting.items():
            if self._is_due((domain, "")):
                text = "mail waits for a key; restore it, activate another, or retire it"
                event(_log, ERROR, text, domain=domain, reason=why)
        for domain, selector in tuple(self._reminded):
            if not selector and domain not in waiting:
                del self._reminded[domain, selector]

    def _is_due(self, what: tuple[str, str]) -> bool:
        """Whether the last reminder of this is long ago; then it is given now."""
        last = self._reminded.get(what)
        if last is not None and self._now() - last < REMINDER:
            return False
        self._reminded[what] = self._now()
        return True

    def _remind(self, key: Key, successor: Key | None) -> None:
        entry = self._keyring.find(key.domain, key.selector)
        if entry is None or entry.key.state is not KeyState.ACTIVE:
            return  # it was replaced in this very round
        if not self._is_due(key.id):
            return
        event(
            _log,
            ERROR,
            "expired key goes on signing until the record of its successor is visible",
            domain=key.domain,
            selector=key.selector,
            expired=key.expires,
            successor=successor.selector if successor else "",
            record_name=successor.record_name if successor else "",
        )
