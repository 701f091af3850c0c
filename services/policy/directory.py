"""The account directory, in the KV bucket `accounts`.

RCPT asks here for every mail, so accounts that exist are remembered for `FRESH_S`; that an account
does not exist is never remembered, so that a new one can get mail at once. While NATS is away,
accounts that were seen in the last hour still exist.

Every change names the revision that it is based on, so two operators cannot undo each other's
change unseen. Raises `StoreError` where the store cannot answer, and nothing else of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from prometheus_client import Counter

from services.common.jetstream import Bucket, JetStream
from services.common.log import INFO, event
from services.common.mail.address import AddressError, Mailbox
from services.common.store import Conflict, StoreError, Unavailable
from services.policy.account import (
    AccountRecord,
    Origin,
    account_key,
    address_of,
    decode,
    domain_prefix,
)
from services.policy.hourly import HourlyCounts
from services.policy.store_deadline import in_time

BUCKET = "accounts"
FRESH_S = 10.0
STALE_S = 3600.0
MAX_REMEMBERED = 20_000
"""A key and a number each: about 4 MB when full."""

_READS_AT_ONCE = 32

CREATED = Counter(
    "gatepost_policy_accounts_created_total",
    "Accounts that came to be.",
    ["origin"],  # created, declared, auto_created
)

_log = logging.getLogger(__name__)


class AccountExists(Exception):
    """There is an account of this address already."""


class NoSuchAccount(Exception):
    """There is no account of this address."""


class LimitReached(Exception):
    """No more accounts may come to be by themselves in this domain in this hour."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An account and the revision of its key."""

    record: AccountRecord
    revision: int


class AccountDirectory:
    """The accounts of all local domains."""

    def __init__(
        self,
        store: JetStream,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._bucket: Bucket | None = None
        self._now = now
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._counts = HourlyCounts(self.bucket, now=now)

    @property
    def connected(self) -> bool:
        """Whether the store can be asked."""
        return self._store.connected

    async def bucket(self) -> Bucket:
        """The bucket with the accounts. Raises `StoreError`."""
        if not self._store.connected:
            raise Unavailable("not connected to NATS")
        if self._bucket is None:
            async with in_time():
                self._bucket = await self._store.bucket(BUCKET)
        return self._bucket

    # --- what a recipient needs -----------------------------------------------------------------

    async def has_account(self, address: Mailbox) -> bool:
        """Whether there is an account of this address. Raises `StoreError`."""
        try:
            key = account_key(address)
        except AddressError:
            return False
        age = self._clock() - self._seen.get(key, -STALE_S)
        if age < FRESH_S:
            return True
        try:
            found = await self._read(key) is not None
        except StoreError:
            if age < STALE_S:
                return True
            raise
        self._remember(key, exists=found)
        return found

    async def may_create(self, domain: str, *, limit: int) -> bool:
        """Whether `auto_create` would find room now. Raises `StoreError`."""
        return await self._counts.count(_counter_key(domain)) < limit

    async def auto_create(self, address: Mailbox, *, limit: int | None) -> None:
        """Make an account for a recipient; one that exists by now is fine.

        `limit` is for the domain and hour, None for none. Raises `LimitReached`, `StoreError`.
        """
        key = _counter_key(address.domain)
        if limit is not None and not await self._counts.take(key, limit=limit):
            raise LimitReached(address.domain)
        try:
            await self.create(address, "", origin=Origin.AUTO_CREATED)
        except AccountExists:
            self._remember(account_key(address), exists=True)

    async def may_send(self, account: Mailbox, *, limit: int, count: bool) -> bool:
        """Whether an account may send to one more recipient in this hour; with `count` it then has.

        Raises `StoreError`.
        """
        key = f"sent.{account_key(account).removeprefix(domain_prefix(''))}"
        if count:
            return await self._counts.take(key, limit=limit)
        return await self._counts.count(key) < limit

    # --- what operators do ----------------------------------------------------------------------

    async def get(self, address: Mailbox) -> Stored | None:
        """The account of this address. Raises `StoreError`."""
        found = await self._read(account_key(address))
        return None if found is None else Stored(decode(found[0]), found[1])

    async def create(
        self, address: Mailbox, password_hash: str, *, origin: Origin
    ) -> AccountRecord:
        """Make an account. Raises `AccountExists`, `StoreError`."""
        now = self._now()
        key = account_key(address)
        record = AccountRecord(str(address_of(key)), origin, now, now, password_hash)
        bucket = await self.bucket()
        try:
            async with in_time():
                await bucket.create(key, record.encode())
        except Conflict as error:
            raise AccountExists(record.address) from error
        self._remember(key, exists=True)
        CREATED.labels(origin.value).inc()
        event(_log, INFO, "account created", account=record.address, origin=origin)
        return record

    async def set_password(self, address: Mailbox, password_hash: str) -> AccountRecord:
        """Replace the password. Raises `NoSuchAccount`, `Conflict`, `StoreError`."""
        stored = await self.get(address)
        if stored is None:
            raise NoSuchAccount(str(address))
        record = replace(stored.record, password_hash=password_hash, updated=self._now())
        bucket = await self.bucket()
        async with in_time():
            await bucket.update(account_key(address), record.encode(), revision=stored.revision)
        event(_log, INFO, "password changed", account=record.address)
        return record

    async def declare(self, address: Mailbox, password_hash: str, stored: Stored) -> None:
        """Make an account what is declared. Raises `Conflict`, `StoreError`."""
        record = replace(
            stored.record,
            origin=Origin.DECLARED,
            password_hash=password_hash,
            updated=self._now(),
        )
        bucket = await self.bucket()
        async with in_time():
            await bucket.update(account_key(address), record.encode(), revision=stored.revision)
        event(_log, INFO, "account changed as declared", account=record.address)

    async def delete(self, address: Mailbox) -> None:
        """Remove an account. Raises `NoSuchAccount`, `Conflict`, `StoreError`."""
        stored = await self.get(address)
        if stored is None:
            raise NoSuchAccount(str(address))
        await self.remove(address, stored)

    async def remove(self, address: Mailbox, stored: Stored) -> None:
        """Remove an account that was read before. Raises `Conflict`, `StoreError`."""
        key = account_key(address)
        bucket = await self.bucket()
        async with in_time():
            await bucket.delete(key, revision=stored.revision)
        self._remember(key, exists=False)
        event(_log, INFO, "account deleted", account=stored.record.address)

    async def addresses(self, domain: str) -> list[Mailbox]:
        """The addresses of all accounts, or of those in a domain, in order. Raises `StoreError`."""
        prefix = domain_prefix(domain)
        bucket = await self.bucket()
        keys = await bucket.keys()
        found = [address_of(key) for key in keys if key.startswith(prefix)]
        return sorted(found, key=lambda mailbox: mailbox.key)

    async def get_all(self, addresses: Sequence[Mailbox]) -> list[AccountRecord]:
        """The accounts of these addresses, without those that are gone. Raises `StoreError`."""
        return [stored.record for stored, _ in await self.get_pairs(addresses)]

    async def get_pairs(self, addresses: Sequence[Mailbox]) -> list[tuple[Stored, Mailbox]]:
        """As `get_all`, each with its revision and address."""
        pairs: list[tuple[Stored, Mailbox]] = []
        for start in range(0, len(addresses), _READS_AT_ONCE):
            part = addresses[start : start + _READS_AT_ONCE]
            found = zip(await asyncio.gather(*map(self.get, part)), part, strict=True)
            pairs += [(stored, address) for stored, address in found if stored is not None]
        return pairs

    # --- below ----------------------------------------------------------------------------------

    async def _read(self, key: str) -> tuple[bytes, int] | None:
        bucket = await self.bucket()
        async with in_time():
            return await bucket.get(key)

    def _remember(self, key: str, *, exists: bool) -> None:
        self._seen.pop(key, None)
        if exists:
            self._seen[key] = self._clock()
            while len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)


def _counter_key(domain: str) -> str:
    return f"created.{domain.replace('.', '_')}"
