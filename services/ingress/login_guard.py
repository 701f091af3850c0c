"""Failed logins as all replicas of the ingress know them: the KV bucket `logins`.

Guessing from one address must not start anew with every connection that lands on another replica.
The counts live in NATS and are kept here as well, so that NATS being away makes the guard forgetful
between replicas but never blind. User names are stored as hashes: people type passwords in the
wrong field.

A guess that is being checked counts as a failure until it is known to be none: clients that send
many passwords in the same moment get no more tries than those that send them one by one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Counter

from services.common.config.smtp import Limits
from services.common.jetstream import Bucket, JetStream
from services.common.log import INFO, WARNING, event
from services.common.mail.address import AddressError, parse_mailbox
from services.common.store import Conflict, StoreError
from services.ingress.gate import Address, is_exempt, source_of
from services.ingress.login_failures import Failures, decoded, delay_s, is_banned

_log = logging.getLogger(__name__)

BUCKET: Final = "logins"
MAX_LOCAL: Final = 10_000
"""Counts kept here, about 2 MB; the oldest go first."""

_UPDATE_ATTEMPTS: Final = 3
_LOCKS: Final = 64

BANS = Counter("gatepost_ingress_login_bans_total", "Clients that were shut out for failed logins.")


class LoginGuard:
    """Counts of failures. Nothing here raises."""

    def __init__(
        self,
        store: JetStream,
        limits: Callable[[], Limits],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._bucket: Bucket | None = None
        self._local: OrderedDict[str, Failures] = OrderedDict()
        self._guesses: Tally[str] = Tally()
        self._guess_over = asyncio.Event()
        # A count is raised by one at a time, or those that fail together would count as one.
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]

    async def is_banned(self, address: Address) -> bool:
        """Whether this client may not log in just now."""
        limits = self._limits()
        if is_exempt(address, limits):
            return False
        return self._bans(await self._known(_client_key(address)), self._clock(), limits)

    def _bans(self, client: Failures, now: float, limits: Limits) -> bool:
        return is_banned(
            client, now, limit=limits.login_failures, ban_s=limits.login_ban.total_seconds()
        )

    @asynccontextmanager
    async def guess(self, address: Address) -> AsyncIterator[bool]:
        """Check a password within this, and tell of its failure; False: the client is banned.

        Waits as long as the guesses of this client that are being checked may be its last ones.
        """
        limits = self._limits()
        if is_exempt(address, limits):
            yield True
            return
        key = _client_key(address)
        while True:
            over = self._guess_over
            failures = await self._known(key)
            now = self._clock()
            if self._bans(failures, now, limits):
                yield False
                return
            # After a ban every single failure is the next one.
            left = max(1, limits.login_failures - failures.at(now).count)
            if self._guesses[key] < left:
                break
            await over.wait()
        self._guesses[key] += 1
        try:
            yield True
        finally:
            self._guesses[key] -= 1
            if not self._guesses[key]:
                del self._guesses[key]
            over, self._guess_over = self._guess_over, asyncio.Event()
            over.set()

    async def failed(self, address: Address, username: str) -> float:
        """Count a failure; how many seconds its answer is to be held back."""
        limits = self._limits()
        account = await self._add(account_key(username)) if username else Failures()
        if is_exempt(address, limits):
            # Perhaps everybody comes from there.
            return delay_s(Failures(), account)
        client = await self._add(_client_key(address))
        if client.count == limits.login_failures:
            BANS.inc()
            event(_log, INFO, "client banned for failed logins", client=str(address))
        return delay_s(client, account)

    async def succeeded(self, username: str) -> None:
        """The account's owner is here: its failures are forgotten, those of the client are not."""
        key = account_key(username)
        if (await self._known(key)).count:
            self._remember(key, Failures())
            try:
                await (await self._opened()).put(key, Failures().encoded())
            except StoreError as error:
                self._complain(error)

    async def _known(self, key: str) -> Failures:
        """The larger of what is stored and what is known here."""
        found = None
        try:
            found = await (await self._opened()).get(key)
        except StoreError as error:
            self._complain(error)
        stored = decoded(found[0]) if found else Failures()
        # Looked at now: it may have become more while the store was asked.
        local = self._local.get(key, Failures())
        return stored if (stored.last, stored.count) >= (local.last, local.count) else local

    async def _add(self, key: str) -> Failures:
        async with self._locks[hash(key) % _LOCKS]:
            return await self._add_alone(key)

    async def _add_alone(self, key: str) -> Failures:
        now = self._clock()
        failures = self._local.get(key, Failures()).another(now)
        for _ in range(_UPDATE_ATTEMPTS):
            try:
                bucket = await self._opened()
                found = await bucket.get(key)
                if found is None:
                    await bucket.create(key, failures.encoded())
                else:
                    failures = decoded(found[0]).another(now)
                    await bucket.update(key, failures.encoded(), revision=found[1])
            except Conflict:
                continue
            except StoreError as error:
                self._complain(error)
            break
        self._remember(key, failures)
        return failures

    def _remember(self, key: str, failures: Failures) -> None:
        self._local[key] = failures
        self._local.move_to_end(key)
        if len(self._local) > MAX_LOCAL:
            self._local.popitem(last=False)

    async def _opened(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self._store.bucket(BUCKET)
        return self._bucket

    def _complain(self, error: StoreError) -> None:
        event(_log, WARNING, "failed logins are counted by this replica alone", reason=str(error))


def _client_key(address: Address) -> str:
    return "client." + _token(str(source_of(address)).encode())


def account_key(username: str) -> str:
    """Where the failures of an account are counted; the name cannot be read in it."""
    try:
        # All ways to write an account's name are one account.
        name = parse_mailbox(username, smtputf8=True).key
    except AddressError:
        name = username.casefold()
    return "account." + _token(hashlib.sha256(name.encode()).digest()[:16])


def _token(octets: bytes) -> str:
    return base64.b32encode(octets).decode("ascii").rstrip("=").lower()
