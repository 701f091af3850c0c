"""Keys that several replicas retire in the same moment, neither having heard of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.dns import AllAnswers, RecordType
from services.common.rpc.errors import RpcFailure
from services.keys.duty import Duty
from services.keys.file_store import FileStore
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.kubernetes_store import KubernetesStore
from services.keys.lifecycle import Lifecycle
from services.keys.private_key import generate
from services.keys.state import KeyState, Step
from services.keys.store import Complete, Gone, KeyStore, News
from tests.support.kubernetes_api import KubernetesApi

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOMAIN = "a.test"


class NoDns:
    """Who retires a key need not look for its record."""

    async def ask_all(self, name: str, rdtype: RecordType) -> AllAnswers:
        raise NotImplementedError


class Replica:
    """A keys service that has read the store once and hears of nothing afterwards."""

    def __init__(self, opened: Callable[[], KeyStore]) -> None:
        self._opened = opened
        self.store = opened()
        self.keyring = Keyring()
        self._lifecycle = Lifecycle(self.store, self.keyring, NoDns(), lambda: NOW)

    async def listen(self) -> None:
        """Hear what there is now; of files, what is new."""
        loaded = asyncio.Event()

        def take(news: News) -> None:
            self.keyring.take(news)
            if isinstance(news, Complete):
                loaded.set()

        following = asyncio.create_task(self.store.follow(take))
        await loaded.wait()
        following.cancel()
        await asyncio.wait({following})

    async def make(self, selector: str) -> None:
        """A key that signs."""
        private = generate(KeyType.ED25519, bits=256)
        key = Key(
            domain=DOMAIN,
            selector=selector,
            key_type=private.key_type,
            bits=private.bits,
            public=private.public,
            created=NOW,
        )
        made = await self.store.create(key, private)
        await self.store.update(made, made.key.stepped(Step.ACTIVATE_UNSEEN, NOW))

    async def retire(self, selector: str, *, leave_unsigned: bool = False) -> str:
        """Why not; blank when it was done."""
        try:
            await self._lifecycle.retire(DOMAIN, selector, leave_unsigned=leave_unsigned)
        except RpcFailure as failure:
            return failure.reason
        return ""

    async def signing(self) -> set[str]:
        """The selectors that sign, as the store has it now."""
        fresh = Replica(self._opened)
        await fresh.store.open()
        try:
            await fresh.listen()
        finally:
            await fresh.store.close()
        keys = fresh.keyring.present()
        return {key.selector for key in keys if key.state is KeyState.ACTIVE}


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture(params=["files", "kubernetes"])
async def replicas(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Replica, Replica, Replica]]:
    """Three that know the keys s1, s2 and s3, all of which sign."""

    def store() -> KeyStore:
        return FileStore(tmp_path) if request.param == "files" else KubernetesStore("")

    if request.param == "kubernetes":
        api: KubernetesApi = request.getfixturevalue("api")
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path)))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    async with AsyncExitStack() as stack:
        made = (Replica(store), Replica(store), Replica(store))
        for each in made:
            await each.store.open()
            stack.push_async_callback(each.store.close)
        for selector in ("s1", "s2", "s3"):
            await made[0].make(selector)
        for each in made:
            await each.listen()
        yield made


Replicas = tuple[Replica, Replica, Replica]


@pytest.fixture
async def two(replicas: Replicas) -> tuple[Replica, Replica]:
    """Two that know s1 and s2."""
    assert await replicas[0].retire("s3") == ""
    for each in replicas:
        await each.listen()
    return replicas[:2]


async def test_the_last_two_keys_are_not_both_retired(two: tuple[Replica, Replica]) -> None:
    one, other = two
    assert await one.retire("s1") == ""
    assert await other.retire("s2") == "KEY_CHANGED"
    assert await one.signing() == {"s2"}
    await other.listen()
    assert await other.retire("s2") == "LAST_ACTIVE_KEY"


async def test_two_that_rely_on_each_other_are_both_refused(
    two: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    register = one.store.register
    answers: list[str] = []

    async def meanwhile(domain: str, duty: Duty) -> None:
        monkeypatch.setattr(one.store, "register", register)
        answers.append(await other.retire("s2"))
        await register(domain, duty)

    monkeypatch.setattr(one.store, "register", meanwhile)
    answers.append(await one.retire("s1"))
    assert answers == ["KEY_CHANGED", "KEY_CHANGED"]
    assert await one.signing() == {"s1", "s2"}


async def test_three_at_once_leave_one_that_signs(replicas: Replicas) -> None:
    selectors = ("s1", "s2", "s3")
    wishes = (each.retire(name) for each, name in zip(replicas, selectors, strict=True))
    answers = await asyncio.gather(*wishes)
    assert set(answers) <= {"", "KEY_CHANGED"}
    assert await replicas[0].signing() == {
        name for name, answer in zip(selectors, answers, strict=True) if answer
    }
    assert await replicas[0].signing()


async def test_a_key_that_another_was_retired_for_can_be_retired_later(
    replicas: Replicas,
) -> None:
    one = replicas[0]
    assert [await one.retire(name) for name in ("s1", "s2", "s3")] == ["", "", "LAST_ACTIVE_KEY"]


@pytest.mark.expect_warnings("stored key was removed while it signs")
async def test_a_damaged_key_is_relied_on_only_if_mail_may_be_unsigned(
    replicas: Replicas,
) -> None:
    one = replicas[0]
    damaged = one.keyring.find(DOMAIN, "s1")
    assert damaged is not None
    one.keyring.take(Gone(damaged.name))
    assert await one.retire("s3") == ""  # there is a good one as well
    assert await one.retire("s2") == "KEY_DAMAGED"
    assert await one.signing() == {"s1", "s2"}
    assert await one.retire("s2", leave_unsigned=True) == ""
