"""Keys are looked after while nobody watches: a year passes in a second."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.common.dns import AllAnswers, Answer, RecordType, ServerAnswer, Status
from services.common.rpc.errors import RpcFailure
from services.keys import key_record
from services.keys.create import KeyMaker, NewKey
from services.keys.duty import Duty, parse_duty
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.lifecycle import Lifecycle
from services.keys.measure import KeyMetrics
from services.keys.private_key import PrivateKey
from services.keys.state import KeyState
from services.keys.store import (
    Complete,
    Entry,
    KeyChangedError,
    KeyExistsError,
    Listener,
    Register,
    StoreUnavailableError,
)
from services.keys.upkeep import Upkeep

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_QUEUE = _DAY


class _Store:
    """A `KeyStore` in memory, as the replicas of a test share it."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.duties: dict[str, Duty] = {}
        self.away = False
        self.refused = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def register(self, domain: str, duty: Duty) -> None:
        if self.away:
            raise StoreUnavailableError("away")
        await asyncio.sleep(0)  # as every store does, others go on meanwhile
        self.duties[domain] = duty

    async def restore(self, entry: Entry, key: Key) -> Entry:
        raise NotImplementedError

    async def foreign_pem(self, name: str, field: str) -> bytes:
        raise NotImplementedError

    async def follow(self, listener: Listener) -> None:
        self.tell(listener)

    def tell(self, listener: Listener) -> None:
        for entry in self.entries.values():
            listener(entry)
        listener(Register(dict(self.duties)))
        listener(Complete(frozenset(self.entries)))

    async def create(self, key: Key, private: PrivateKey) -> Entry:
        if key.record_name in self.entries:
            self.refused.set()
            raise KeyExistsError("used")
        return self._put(Entry(key.record_name, key, private, ""))

    async def update(self, entry: Entry, key: Key) -> Entry:
        if self.entries[entry.name].version != entry.version:
            raise KeyChangedError("changed")
        return self._put(replace(entry, key=key))

    async def erase(self, entry: Entry, key: Key) -> Entry:
        return self._put(replace(entry, key=key, private=None))

    def _put(self, entry: Entry) -> Entry:
        if self.away:
            raise StoreUnavailableError("away")
        self.entries[entry.name] = replace(entry, version=str(entry.key.revision))
        return self.entries[entry.name]


class _World:
    """The DNS, the store and the time that all replicas share."""

    def __init__(self) -> None:
        self.now = _T0
        self.store = _Store()
        self.published: dict[str, str] = {}
        self.silent = False
        self.asked = 0

    async def ask_all(self, name: str, rdtype: RecordType) -> AllAnswers:
        self.asked += 1
        record = self.published.get(name)
        status = Status.OK if record else Status.NXDOMAIN
        answer = Answer(name, rdtype, status, (record.encode(),) if record else ())
        if self.silent:
            answer = Answer(name, rdtype, Status.TEMPORARY, detail="silence")
        return AllAnswers(name, "a.test", (ServerAnswer("ns1", answer),))

    def publish(self, key: Key) -> None:
        self.published[key.record_name] = key_record.value(key)

    def keys(self) -> dict[str, KeyState]:
        return {entry.key.selector: entry.key.state for entry in self.store.entries.values()}

    def key(self, selector: str) -> Key:
        return self.store.entries[f"{selector}._domainkey.a.test"].key


class _Replica:
    """One keys service, without its server."""

    def __init__(self, world: _World) -> None:
        def now() -> datetime:
            return world.now

        self.world = world
        self.keyring = Keyring()
        self.maker = KeyMaker(world.store, self.keyring, now)
        self.lifecycle = Lifecycle(world.store, self.keyring, world, now)
        self.upkeep = Upkeep(self.keyring, self.maker, self.lifecycle, now)
        self.metrics = KeyMetrics(self.keyring, self.lifecycle.visible, now=now)
        self.listen()

    def listen(self) -> None:
        """Hear what others did."""
        self.world.store.tell(self.keyring.take)

    async def after(self, days: float) -> None:
        """A round of upkeep, so many days after the beginning."""
        self.world.now = _T0 + days * _DAY
        await self.upkeep.once(_QUEUE)

    async def active(self, *, life: float = 0) -> Key:
        wanted = NewKey(domain="a.test", key_type=KeyType.ED25519, bits=256, expiry=life * _DAY)
        key = await self.maker.create(wanted)
        self.world.publish(key)
        return await self.lifecycle.activate("a.test", key.selector, override=False)

    def samples(self) -> Mapping[str, float]:
        """Metrics by name, without their labels' names."""
        return {
            sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
            for metric in self.metrics.collect()
            for sample in metric.samples
        }


@pytest.fixture
def world() -> _World:
    return _World()


@pytest.fixture
def replica(world: _World) -> _Replica:
    return _Replica(world)


async def test_a_record_that_appears_is_noticed(world: _World, replica: _Replica) -> None:
    key = await replica.maker.create(NewKey(domain="a.test", key_type=KeyType.ED25519, bits=256))
    await replica.after(0.1)
    assert world.keys() == {key.selector: KeyState.PENDING}
    world.publish(key)
    await replica.after(0.2)
    assert world.keys() == {key.selector: KeyState.PUBLISHED}
    # It is for a person to let it sign; what is gone meanwhile is noticed too, in a while.
    world.published.clear()
    for minute in range(12):
        await replica.after(0.3 + minute / 1440)
    assert world.keys() == {key.selector: KeyState.PENDING}


async def test_a_silent_server_takes_nothing_back(world: _World, replica: _Replica) -> None:
    key = await replica.active()
    await replica.after(1)
    world.silent = True
    for minute in range(12):
        await replica.after(2 + minute / 1440)
    assert world.keys() == {key.selector: KeyState.ACTIVE}
    assert replica.samples()[f"gatepost_keys_record_visible a.test {key.selector}"] == 1


@pytest.mark.expect_warnings("publish the record of its successor", "expired key goes on signing")
async def test_the_life_of_a_key_that_expires(world: _World, replica: _Replica) -> None:
    old = await replica.active(life=90)
    await replica.after(75)
    assert world.keys() == {old.selector: KeyState.ACTIVE}
    await replica.after(76)
    [new] = set(world.keys()) - {old.selector}
    assert world.keys()[new] is KeyState.PENDING
    assert world.key(new).expires == _T0 + (76 + 90) * _DAY
    # Nobody publishes it: the expired key goes on.
    await replica.after(91)
    assert world.keys() == {old.selector: KeyState.ACTIVE, new: KeyState.PENDING}
    assert replica.samples()[f"gatepost_keys_expiry_seconds a.test {old.selector}"] == -86400
    world.publish(world.key(new))
    await replica.after(92)
    assert world.keys() == {old.selector: KeyState.RETIRING, new: KeyState.ACTIVE}
    assert [s.selector for s in replica.keyring.signing("a.test").signers] == [new]
    await replica.after(92 + 5.9)
    assert world.keys()[old.selector] is KeyState.RETIRING
    await replica.after(92 + 6)
    assert world.keys()[old.selector] is KeyState.RETIRED


@pytest.mark.expect_warnings("publish the record of its successor")
async def test_a_successor_that_is_published_in_time_waits_for_the_day(
    world: _World, replica: _Replica
) -> None:
    old = await replica.active(life=90)
    await replica.after(76)
    [new] = set(world.keys()) - {old.selector}
    succession = f"gatepost_keys_successor_published a.test {old.selector}"
    assert replica.samples()[succession] == 0
    world.publish(world.key(new))
    await replica.after(76.5)
    assert replica.samples()[succession] == 1
    assert world.keys() == {old.selector: KeyState.ACTIVE, new: KeyState.PUBLISHED}
    await replica.after(90)
    assert world.keys() == {old.selector: KeyState.RETIRING, new: KeyState.ACTIVE}


@pytest.mark.expect_warnings("publish the record of its successor", "expired key goes on signing")
async def test_two_replicas_make_one_successor(world: _World, replica: _Replica) -> None:
    old = await replica.active(life=90)
    other = _Replica(world)
    world.now = _T0 + 95 * _DAY
    # Neither has heard of what the other does.
    await replica.upkeep.once(_QUEUE)
    known = set(world.keys())
    round_of_other = asyncio.create_task(other.upkeep.once(_QUEUE))
    await world.store.refused.wait()
    other.listen()
    await round_of_other
    assert set(world.keys()) == known
    assert len(known) == 2
    new = (known - {old.selector}).pop()
    world.publish(world.key(new))
    await other.after(96)
    await replica.after(96)  # with an old view of both keys
    replica.listen()
    await replica.after(97)
    assert world.keys() == {old.selector: KeyState.RETIRING, new: KeyState.ACTIVE}


@pytest.mark.expect_warnings("publish the record of its successor")
async def test_a_successor_that_was_given_up_is_made_anew(world: _World, replica: _Replica) -> None:
    old = await replica.active(life=90)
    await replica.after(76)
    [first] = set(world.keys()) - {old.selector}
    await replica.lifecycle.delete("a.test", first)
    await replica.after(77)
    [second] = set(world.keys()) - {old.selector, first}
    assert world.keys()[second] is KeyState.PENDING


@pytest.mark.expect_warnings("its record is no longer visible everywhere")
async def test_a_key_that_signs_without_its_record_is_told(
    world: _World, replica: _Replica
) -> None:
    key = await replica.active()
    name = f"gatepost_keys_record_visible a.test {key.selector}"
    await replica.after(1)
    assert replica.samples()[name] == 1
    assert replica.samples()["gatepost_keys_unpublished_signing_domains"] == 0
    world.published.clear()
    for minute in range(12):
        await replica.after(2 + minute / 1440)
    assert replica.samples()[name] == 0
    assert replica.samples()["gatepost_keys_unpublished_signing_domains"] == 1
    assert world.keys() == {key.selector: KeyState.ACTIVE}


@pytest.mark.expect_warnings("publish the record of its successor")
async def test_a_store_that_is_away_is_tried_again(world: _World, replica: _Replica) -> None:
    old = await replica.active(life=90)
    world.store.away = True
    await replica.after(80)
    assert set(world.keys()) == {old.selector}
    world.store.away = False
    await replica.after(80.1)
    assert len(world.keys()) == 2


async def test_keys_are_counted_by_state(world: _World, replica: _Replica) -> None:
    await replica.active()
    await replica.maker.create(NewKey(domain="b.test", key_type=KeyType.ED25519, bits=256))
    samples = replica.samples()
    assert samples["gatepost_keys_stored_keys active"] == 1
    assert samples["gatepost_keys_stored_keys pending"] == 1
    assert samples["gatepost_keys_stored_keys retired"] == 0
    assert samples["gatepost_keys_damaged_keys"] == 0
    assert samples["gatepost_keys_store_readable"] == 1


async def test_hurry_ends_for_records_that_nobody_publishes(
    world: _World, replica: _Replica
) -> None:
    await replica.maker.create(NewKey(domain="a.test", key_type=KeyType.ED25519, bits=256))
    for _ in range(20):
        await replica.after(0.5)
    assert world.asked == 20
    for _ in range(20):
        await replica.after(5)
    assert world.asked == 22


@pytest.mark.expect_warnings("mail is unsigned from now on")
async def test_the_register_follows_the_keys(world: _World, replica: _Replica) -> None:
    key = await replica.active()
    assert world.store.duties == {"a.test": parse_duty(key.selector)}
    other = await replica.active()
    await replica.lifecycle.retire("a.test", key.selector, leave_unsigned=False)
    assert world.store.duties == {"a.test": parse_duty(other.selector)}
    await replica.lifecycle.retire("a.test", other.selector, leave_unsigned=True)
    assert world.store.duties == {"a.test": parse_duty("")}


async def test_two_keys_that_are_retired_at_once_do_not_rely_on_each_other(
    world: _World, replica: _Replica
) -> None:
    keys = [await replica.active(), await replica.active()]
    retired = await asyncio.gather(
        *(replica.lifecycle.retire("a.test", key.selector, leave_unsigned=False) for key in keys),
        return_exceptions=True,
    )
    refused = [each for each in retired if isinstance(each, RpcFailure)]
    assert [failure.reason for failure in refused] == ["LAST_ACTIVE_KEY"]
    assert len(world.store.duties["a.test"].signing) == 1


@pytest.mark.expect_warnings("the register of the domains that sign cannot be written")
async def test_what_could_not_be_registered_is_registered_later(
    world: _World, replica: _Replica
) -> None:
    key = await replica.active()
    world.store.duties.clear()
    replica.keyring.take(Register({}))
    world.store.away = True
    await replica.after(1)
    assert world.store.duties == {}
    world.store.away = False
    await replica.after(2)
    assert world.store.duties == {"a.test": parse_duty(key.selector)}


@pytest.mark.expect_warnings(
    "mail waits for a key", "mail is unsigned from now on", "a lost key was given up"
)
async def test_mail_that_waits_for_a_key_is_told_every_hour(
    world: _World, replica: _Replica, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.duties["a.test"] = parse_duty("lost")
    replica.listen()

    def told() -> int:
        return sum(record.message == _WAITS for record in caplog.records)

    await replica.after(0)
    await replica.after(0.5 / 24)
    assert told() == 1
    assert replica.samples()["gatepost_keys_waiting_domains"] == 1
    await replica.after(1.1 / 24)
    assert told() == 2
    await replica.lifecycle.retire("a.test", "lost", leave_unsigned=True)
    await replica.after(3 / 24)
    assert told() == 2
    assert replica.samples()["gatepost_keys_waiting_domains"] == 0


_WAITS = "mail waits for a key; restore it, activate another, or retire it"
