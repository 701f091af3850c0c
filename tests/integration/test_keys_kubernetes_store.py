"""The Kubernetes store over real HTTP: conflicts, expired watches, refusals, an absent server."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes_asyncio.config import incluster_config

from services.common.start import StartError
from services.keys import kubernetes_api, kubernetes_store
from services.keys.duty import parse_duty
from services.keys.key import Key, KeyType
from services.keys.kubernetes_store import KubernetesStore
from services.keys.private_key import PrivateKey, generate
from services.keys.state import KeyState, Step
from services.keys.store import (
    Broken,
    Complete,
    Entry,
    Gone,
    KeyChangedError,
    KeyExistsError,
    Lost,
    StoreUnavailableError,
)
from tests.support.follower import Follower
from tests.support.kubernetes_api import NAMESPACE, TOKEN, KubernetesApi

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_NAME = "s1.domainkey.a.test"


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_store, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(kubernetes_store, "LAST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(kubernetes_store, "SHORTEST_WATCH_SECONDS", 0.01)


@pytest.fixture
async def stores(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[KubernetesStore, KubernetesStore]]:
    """Two replicas."""
    monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path)))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    replicas = (KubernetesStore(""), KubernetesStore(NAMESPACE))
    for store in replicas:
        await store.open()
    yield replicas
    for store in replicas:
        await store.close()


@pytest.fixture
def store(stores: tuple[KubernetesStore, KubernetesStore]) -> KubernetesStore:
    return stores[0]


@pytest.fixture
def private() -> PrivateKey:
    return generate(KeyType.ED25519, bits=256)


def _key(private: PrivateKey, selector: str = "s1") -> Key:
    return Key(
        domain="a.test",
        selector=selector,
        key_type=private.key_type,
        bits=private.bits,
        public=private.public,
        created=_NOW,
    )


@pytest.fixture
async def follow() -> AsyncIterator[Callable[[KubernetesStore], Follower]]:
    followers: list[Follower] = []

    def begin(store: KubernetesStore) -> Follower:
        followers.append(Follower(store))
        return followers[-1]

    yield begin
    for follower in followers:
        await follower.close()


Follow = Callable[[KubernetesStore], Follower]


async def test_a_key_reaches_the_other_replica(
    stores: tuple[KubernetesStore, KubernetesStore], private: PrivateKey, follow: Follow
) -> None:
    here, there = stores
    follower = follow(there)
    assert await follower.next(Complete) == Complete(frozenset())
    made = await here.create(_key(private), private)
    heard = await follower.next(Entry)
    assert (heard.key, heard.version, heard.name) == (made.key, made.version, _NAME)
    assert heard.private.pem() == private.pem()
    changed = await here.update(made, made.key.stepped(Step.SEEN, _NOW))
    assert (await follower.next(Entry)).key == changed.key
    # And whoever comes later is told the same.
    late = follow(here)
    assert (await late.next(Entry)).key == changed.key
    assert await late.next(Complete) == Complete(frozenset({_NAME}))


async def test_two_replicas_cannot_overwrite_each_other(
    stores: tuple[KubernetesStore, KubernetesStore],
    api: KubernetesApi,
    private: PrivateKey,
    follow: Follow,
) -> None:
    here, there = stores
    made = await here.create(_key(private), private)
    [seen] = [await follow(there).next(Entry)]
    await here.update(made, made.key.stepped(Step.SEEN, _NOW))
    with pytest.raises(KeyChangedError, match="changed by somebody else"):
        await there.update(seen, seen.key.stepped(Step.RETIRE, _NOW))
    labels = api.secrets()[_NAME]["metadata"]["labels"]
    assert labels["gatepost/state"] == "published"


async def test_a_selector_is_used_once_even_after_its_key_is_deleted(
    stores: tuple[KubernetesStore, KubernetesStore], api: KubernetesApi, private: PrivateKey
) -> None:
    here, there = stores
    made = await here.create(_key(private), private)
    with pytest.raises(KeyExistsError, match="used already"):
        await there.create(_key(private), private)
    retired = await here.update(made, made.key.stepped(Step.RETIRE, _NOW))
    deleted = await here.erase(retired, retired.key.stepped(Step.DELETE, _NOW))
    assert (deleted.key.state, deleted.private) == (KeyState.DELETED, None)
    assert not api.secrets()[_NAME].get("data")
    with pytest.raises(KeyExistsError, match="used already"):
        await there.create(_key(private), private)


async def test_a_secret_that_was_removed_is_not_made_again(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey
) -> None:
    made = await store.create(_key(private), private)
    api.remove(_NAME)
    with pytest.raises(KeyChangedError, match="gone"):
        await store.update(made, made.key.stepped(Step.SEEN, _NOW))
    assert api.secrets() == {}


async def test_edits_by_hand_are_heard(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    follower = follow(store)
    await store.create(_key(private), private)
    await follower.next(Entry)
    good = api.secrets()[_NAME]

    def break_it(secret: dict[str, Any]) -> None:
        secret["data"] = {"private.pem": base64.b64encode(b"garbage").decode()}

    api.edit(_NAME, break_it)
    broken = await follower.next(Broken)
    assert (broken.name, broken.domain, broken.selector) == (_NAME, "a.test", "s1")
    assert "not a private key" in broken.reason
    api.edit(_NAME, lambda secret: secret.update(data=good["data"]))
    assert (await follower.next(Entry)).private.pem() == private.pem()
    api.edit(
        _NAME, lambda secret: secret["metadata"]["labels"].update({"gatepost/state": "active"})
    )
    assert (await follower.next(Entry)).key.state is KeyState.ACTIVE
    # No longer ours, as far as labels say, and gone altogether.
    api.edit(_NAME, lambda secret: secret["metadata"].update(labels={}))
    assert await follower.next(Gone) == Gone(_NAME)
    api.edit(_NAME, lambda secret: secret.update(good))
    await follower.next(Entry)
    api.remove(_NAME)
    assert await follower.next(Gone) == Gone(_NAME)


async def test_secrets_of_others_are_not_looked_at(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    api.edit("tls", lambda secret: secret.update(data={"tls.key": "AAAA"}))
    follower = follow(store)
    assert await follower.next(Complete) == Complete(frozenset())
    api.edit("tls", lambda secret: secret.update(data={"tls.key": "BBBB"}))
    await store.create(_key(private), private)
    assert (await follower.next(Entry)).name == _NAME


async def test_a_history_that_is_gone_is_listed_anew(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    follower = follow(store)
    await follower.next(Complete)
    await store.create(_key(private), private)
    api.compact()
    assert (await follower.next(Complete)).names == {_NAME}
    api.compact()
    assert (await follower.next(Complete)).names == {_NAME}
    made = await store.create(_key(private, "s2"), private)
    heard = await follower.next(Entry)
    while heard.key != made.key:
        heard = await follower.next(Entry)
    # Nothing was ever said to be lost.
    assert not [news for news in list(follower.news._queue) if isinstance(news, Lost)]  # type: ignore[attr-defined]


async def test_watches_that_end_are_begun_again_without_listing(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    api.max_watch_seconds = 0.05
    follower = follow(store)
    await follower.next(Complete)
    async with asyncio.timeout(10):
        while api.requests.count(("watch", "")) < 5:  # noqa: ASYNC110 - it counts in its thread
            await asyncio.sleep(0.02)
    made = await store.create(_key(private), private)
    assert (await follower.next(Entry)).key == made.key
    assert api.requests.count(("list", "")) == 1


async def test_many_keys_come_in_pages(
    store: KubernetesStore,
    api: KubernetesApi,
    private: PrivateKey,
    follow: Follow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kubernetes_api, "PAGE_SIZE", 3)
    made = [await store.create(_key(private, f"s{n}"), private) for n in range(8)]
    complete = await follow(store).next(Complete)
    assert complete.names == {entry.name for entry in made}
    assert api.requests.count(("list", "")) == 3


@pytest.mark.expect_warnings("keys cannot be read")
async def test_an_api_server_that_is_away_comes_back(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    follower = follow(store)
    made = await store.create(_key(private), private)
    await follower.next(Entry)
    api.stop()
    assert "cannot be reached" in (await follower.next(Lost)).reason
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.create(_key(private, "s2"), private)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.update(made, made.key.stepped(Step.SEEN, _NOW))
    api.start()
    assert (await follower.next(Complete)).names == {_NAME}
    await store.update(made, made.key.stepped(Step.SEEN, _NOW))
    heard = await follower.next(Entry)
    assert heard.key.state is KeyState.PUBLISHED


@pytest.mark.expect_warnings("keys cannot be read")
async def test_an_api_server_away_for_a_minute_is_tried_until_it_is_back(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    """As often as in a minute, with pauses that are a hundredth."""
    follower = follow(store)
    await store.create(_key(private), private)
    await follower.next(Entry)
    api.stop()
    for _ in range(60 // 5):
        await follower.next(Lost)
    api.start()
    # What nobody could tell meanwhile was not taken for gone.
    assert (await follower.next(Complete)).names == {_NAME}


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_api_server_in_trouble_is_tried_again(
    store: KubernetesStore,
    api: KubernetesApi,
    private: PrivateKey,
    follow: Follow,
    status: int,
) -> None:
    api.failing = status
    follower = follow(store)
    assert f"answers {status}" in (await follower.next(Lost)).reason
    with pytest.raises(StoreUnavailableError, match=f"answers {status}"):
        await store.create(_key(private), private)
    api.failing = 0
    await follower.next(Complete)
    await store.create(_key(private), private)


@pytest.mark.parametrize("verb", ["list", "watch", "create", "patch"])
async def test_what_is_forbidden_is_said_as_the_api_server_says_it(
    store: KubernetesStore,
    api: KubernetesApi,
    private: PrivateKey,
    follow: Follow,
    verb: str,
) -> None:
    made = await store.create(_key(private, "s0"), private)
    api.verbs.discard(verb)
    if verb in ("list", "watch"):
        reason = (await follow(store).next(Lost)).reason
    else:
        attempt = (
            store.create(_key(private), private)
            if verb == "create"
            else store.update(made, made.key.stepped(Step.SEEN, _NOW))
        )
        with pytest.raises(StoreUnavailableError) as caught:
            await attempt
        reason = str(caught.value)
    assert "answers 403 Forbidden: secrets" in reason
    assert f'cannot {verb} resource "secrets"' in reason


async def test_only_four_verbs_are_needed(
    store: KubernetesStore, api: KubernetesApi, private: PrivateKey, follow: Follow
) -> None:
    api.verbs = {"list", "watch", "create", "patch"}
    follower = follow(store)
    made = await store.create(_key(private), private)
    await follower.next(Entry)
    retired = await store.update(made, made.key.stepped(Step.RETIRE, _NOW))
    await store.erase(retired, retired.key.stepped(Step.DELETE, _NOW))
    await follower.next(Entry)
    await store.register("a.test", parse_duty("s1"))
    api.edit("old-server", lambda secret: secret.update(data={"key": "UEVN"}))
    assert await store.foreign_pem("old-server", "") == b"PEM"
    assert {verb for verb, _ in api.requests} == api.verbs


async def test_a_token_that_is_not_known_is_said(
    store: KubernetesStore, api: KubernetesApi, follow: Follow
) -> None:
    api.token = "another"
    assert "401 Unauthorized" in (await follow(store).next(Lost)).reason


async def test_without_a_cluster_there_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    store = KubernetesStore("")
    with pytest.raises(StartError, match="a service account in a cluster, or a kubeconfig"):
        await store.open()
    await store.close()


async def test_in_a_cluster_the_service_account_is_used_and_its_token_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: PrivateKey
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text(NAMESPACE)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(incluster_config, "TOKEN_REFRESH_PERIOD", timedelta(0))
    monkeypatch.setattr(kubernetes_api, "_NAMESPACE_FILE", tmp_path / "namespace")
    with KubernetesApi(tls) as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        store = KubernetesStore("")
        await store.open()
        await store.create(_key(private), private)
        api.token = "the next one"
        (tmp_path / "token").write_text(api.token)
        follower = Follower(store)
        assert (await follower.next(Complete)).names == {_NAME}
        await follower.close()
        await store.close()
