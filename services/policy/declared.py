"""Keeps the directory as `recipients.accounts_file` declares it.

Every replica reconciles by itself: each step is idempotent, and one that another replica made first
is a conflict that the next round finds settled. One whose file is not the newest stays its hand, as
`file_lease` says. Accounts that operators made are never touched; one that is declared as well
becomes a declared one. What is taken out of the file is removed, its mailbox stays.

Life cycle: `follow` for ever; a round when the file changes, and one now and then in case somebody
changed the directory.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from prometheus_client import Gauge

from services.common.config.source import ConfigSource
from services.common.log import ERROR, INFO, WARNING, event
from services.common.store import StoreError
from services.policy.account import BadRecord, Origin
from services.policy.account_file import (
    AccountFile,
    BadAccountFile,
    DeclaredAccount,
    parse_accounts,
)
from services.policy.directory import AccountDirectory, AccountExists
from services.policy.file_lease import FileLease
from services.policy.passwords import BadPassword, Busy, Passwords

POLL_S = 2.0
ROUND_S = 300.0
RETRY_S = 5.0

VALID = Gauge(
    "gatepost_policy_accounts_file_valid",
    "1 while recipients.accounts_file can be used or is not set, 0 while an older one counts.",
)

_log = logging.getLogger(__name__)


class Outdated(Exception):
    """Another replica has a newer file."""


class Declared:
    """The declared accounts and aliases."""

    def __init__(
        self, source: ConfigSource, directory: AccountDirectory, passwords: Passwords
    ) -> None:
        self._source = source
        self._directory = directory
        self._passwords = passwords
        self._lease = FileLease(directory.bucket, passwords)
        self._octets: bytes | None = None
        self._path: Path | None = None
        self.file: AccountFile | None = None
        """What is declared now; None when no file is set or it never could be used."""
        VALID.set(1)
        self._look()

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """The declared aliases; the same object until the file changes."""
        return self.file.aliases if self.file is not None else _NO_ALIASES

    async def follow(self) -> None:
        """Work for ever."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            if (self._look() or loop.time() >= due) and self._directory.connected:
                done = await self._reconcile()
                due = loop.time() + (ROUND_S if done else RETRY_S)
            await asyncio.sleep(POLL_S)

    def _look(self) -> bool:
        """Read the file if it has changed; True when another one counts now."""
        path = self._source.current.recipients.accounts_file
        if path is None:
            changed, self.file, self._octets = self.file is not None, None, None
            VALID.set(1)
            return changed
        octets = _octets(path)
        if octets == self._octets and path == self._path:
            return False
        self._octets, self._path = octets, path
        try:
            if octets is None:
                raise BadAccountFile("cannot be read")
            self.file = parse_accounts(octets)
            self._lease.read(octets)
        except BadAccountFile as error:
            VALID.set(0)
            event(_log, ERROR, "accounts file rejected", file=path, reason=str(error))
            return False
        VALID.set(1)
        local = self._source.current.domains.local
        elsewhere = sum(account.address.domain not in local for account in self.file.accounts)
        fields = {"accounts": len(self.file.accounts), "without_mailbox": elsewhere}
        event(_log, INFO, "accounts file read", file=path, **fields)
        return True

    async def _reconcile(self) -> bool:
        """Make the directory what is declared; False if another round is needed soon."""
        declared = self.file
        if declared is None:
            return True
        try:
            if not await self._lease.hold():
                return False
            for account in declared.accounts:
                await self._keep(account)
            await self._remove_others(declared)
        except (StoreError, AccountExists, Outdated, BadRecord, Busy) as error:
            event(_log, WARNING, "accounts not reconciled yet", reason=type(error).__name__)
            return False
        return True

    async def _keep(self, account: DeclaredAccount) -> None:
        """Make or change one account. A password is compared, and hashed only if it differs."""
        stored = await self._directory.get(account.address)
        if stored is None:
            hashed = await self._hash(account)
            await self._check_newest()
            await self._directory.create(account.address, hashed, origin=Origin.DECLARED)
            return
        hashed = stored.record.password_hash
        if account.password:
            if not await self._passwords.verify(hashed, account.password):
                hashed = await self._hash(account)
        else:
            hashed = account.password_hash
        if hashed != stored.record.password_hash or stored.record.origin is not Origin.DECLARED:
            await self._check_newest()
            await self._directory.declare(account.address, hashed, stored)

    async def _hash(self, account: DeclaredAccount) -> str:
        if not account.password:
            return account.password_hash
        try:
            return await self._passwords.hash(account.password)
        except BadPassword as error:
            fields = {"account": account.address, "reason": str(error)}
            event(_log, ERROR, "declared password cannot be used; nobody can log in", **fields)
            return ""

    async def _remove_others(self, declared: AccountFile) -> None:
        """Remove what was declared once and is not any more."""
        kept = {account.address.key for account in declared.accounts}
        others = [each for each in await self._directory.addresses("") if each.key not in kept]
        for stored, address in await self._directory.get_pairs(others):
            if stored.record.origin is Origin.DECLARED:
                await self._check_newest()
                await self._directory.remove(address, stored)

    async def _check_newest(self) -> None:
        """Before each change, since a round takes long. Raises `Outdated`, `StoreError`."""
        if not await self._lease.held():
            raise Outdated


_NO_ALIASES: dict[str, tuple[str, ...]] = {}


def _octets(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
