"""Accounts from a file that two replicas of policy do not see change in the same moment."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from services.common.config.source import ConfigSource
from services.common.jetstream import JetStream
from services.common.mail.address import Mailbox, make_mailbox
from services.policy.account import Origin
from services.policy.declared import Declared
from services.policy.directory import AccountDirectory, Stored
from services.policy.file_lease import KEY, PATIENCE_S, FileLease
from services.policy.passwords import Passwords
from tests.support.clock import FakeClock

FIRST, SECOND = (make_mailbox(name, "example.test") for name in ("first", "second"))
OLD, NEW = "the old password", "the new password"


class Replica:
    """What one pod sees of the file, and what it makes of it."""

    def __init__(self, path: Path, directory: AccountDirectory, passwords: Passwords) -> None:
        self._path = path
        self._directory = directory
        self._passwords = passwords
        self._source = SimpleNamespace(
            current=SimpleNamespace(
                recipients=SimpleNamespace(accounts_file=path),
                domains=SimpleNamespace(local=frozenset({"example.test"})),
            )
        )
        self.declared: Declared | None = None

    def sees(self, **accounts: str) -> None:
        """The file declares these accounts with these passwords from now on, as `follow` finds."""
        content = [{"address": f"{n}@example.test", "password": p} for n, p in accounts.items()]
        self._path.write_text(yaml.safe_dump({"accounts": content}), encoding="utf-8")
        if self.declared is None:
            source = cast("ConfigSource", self._source)
            self.declared = Declared(source, self._directory, self._passwords)
        else:
            assert self.declared._look()

    async def round(self) -> bool:
        """Whether all is as the file says."""
        assert self.declared is not None
        return await self.declared._reconcile()


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """A store that is late is not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.policy.store_deadline.STORE_SECONDS", 60)
        yield


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    cheap = Passwords(time_cost=1, memory_kib=8)
    yield cheap
    cheap.close()


@pytest.fixture
async def directory(store: JetStream) -> AccountDirectory:
    await store.purge("KV_accounts", ">")
    return AccountDirectory(store)


@pytest.fixture
async def replicas(
    tmp_path: Path, directory: AccountDirectory, passwords: Passwords
) -> tuple[Replica, Replica]:
    one, two = (Replica(tmp_path / name, directory, passwords) for name in ("one", "two"))
    for each in (one, two):
        each.sees(first=OLD)
        assert await each.round()
    return one, two


async def test_what_was_added_is_not_removed_by_who_has_the_old_file(
    replicas: tuple[Replica, Replica], directory: AccountDirectory
) -> None:
    one, two = replicas
    one.sees(first=OLD, second=NEW)
    assert await one.round()
    assert not await two.round()
    assert await directory.get(SECOND) is not None
    two.sees(first=OLD, second=NEW)
    assert await two.round()
    assert await one.round()


async def test_what_was_removed_does_not_come_back(
    replicas: tuple[Replica, Replica], directory: AccountDirectory
) -> None:
    one, two = replicas
    one.sees(second=NEW)
    assert await one.round()
    assert not await two.round()
    assert await directory.get(FIRST) is None


async def test_a_new_password_stays(
    replicas: tuple[Replica, Replica], directory: AccountDirectory, passwords: Passwords
) -> None:
    one, two = replicas
    one.sees(first=NEW)
    assert await one.round()
    assert not await two.round()
    stored = await directory.get(FIRST)
    assert stored is not None
    assert await passwords.verify(stored.record.password_hash, NEW)


async def test_a_file_that_came_while_the_old_one_was_worked_on_counts(
    replicas: tuple[Replica, Replica],
    directory: AccountDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = replicas
    addresses = directory.addresses

    async def meanwhile(domain: str) -> list[Mailbox]:
        monkeypatch.undo()
        one.sees(first=OLD, second=NEW)
        assert await one.round()
        return await addresses(domain)

    monkeypatch.setattr(directory, "addresses", meanwhile)
    assert not await two.round()
    assert await directory.get(SECOND) is not None


async def test_an_account_that_an_operator_made_in_its_place_is_left_alone(
    replicas: tuple[Replica, Replica],
    directory: AccountDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, _ = replicas
    get_pairs = directory.get_pairs

    async def meanwhile(addresses: Sequence[Mailbox]) -> list[tuple[Stored, Mailbox]]:
        monkeypatch.undo()
        found = await get_pairs(addresses)
        await directory.delete(FIRST)
        await directory.create(FIRST, "", origin=Origin.CREATED)
        return found

    monkeypatch.setattr(directory, "get_pairs", meanwhile)
    one.sees(second=NEW)
    await one.round()
    stored = await directory.get(FIRST)
    assert stored is not None
    assert stored.record.origin is Origin.CREATED


async def test_a_file_that_nobody_has_any_more_ceases_to_count(
    directory: AccountDirectory, passwords: Passwords
) -> None:
    clock = FakeClock()
    leases: list[Any] = [FileLease(directory.bucket, passwords, clock=clock) for _ in range(2)]
    one, two = leases
    two.read(b"old")
    assert await two.hold()
    one.read(b"new")
    assert await one.hold()
    assert not await two.held()
    assert not await two.hold()
    clock.advance(PATIENCE_S - 1)
    assert await one.hold()  # it lives and renews
    clock.advance(PATIENCE_S - 1)
    assert not await two.hold()
    clock.advance(PATIENCE_S - 1)
    assert not await two.hold()
    clock.advance(2)
    assert await two.hold()
    assert await two.held()
    assert not await one.hold()


async def test_passwords_cannot_be_found_by_guessing_files(
    directory: AccountDirectory, passwords: Passwords
) -> None:
    lease = FileLease(directory.bucket, passwords)
    lease.read(b"accounts: []")
    assert await lease.hold()
    found = await (await directory.bucket()).get(KEY)
    assert found is not None
    assert found[0].startswith(b"$argon2id$")
