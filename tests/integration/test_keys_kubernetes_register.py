"""The register of the domains that sign, as a Secret that replicas share; and what the API server's
rules for names and changes mean for Secrets of ours."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.keys.duty import parse_duty
from services.keys.key import Key, KeyType
from services.keys.kubernetes_store import KubernetesStore
from services.keys.private_key import generate
from services.keys.state import Step
from services.keys.store import Complete, Entry, Register, StoreUnavailableError
from tests.support.follower import Follower
from tests.support.kubernetes_api import NAMESPACE, KubernetesApi

_NOW = datetime(2026, 1, 1, tzinfo=UTC)

Follow = Callable[[KubernetesStore], Follower]


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


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
async def follow() -> AsyncIterator[Follow]:
    followers: list[Follower] = []

    def begin(store: KubernetesStore) -> Follower:
        followers.append(Follower(store))
        return followers[-1]

    yield begin
    for follower in followers:
        await follower.close()


async def test_the_register_reaches_the_other_replica_line_by_line(
    stores: tuple[KubernetesStore, KubernetesStore], api: KubernetesApi, follow: Follow
) -> None:
    here, there = stores
    follower = follow(there)
    assert await follower.next(Register) == Register({})
    await here.register("a.test", parse_duty("s1"))
    assert (await follower.next(Register)).duties == {"a.test": parse_duty("s1")}
    await there.register("b.test", parse_duty("s2 -old"))
    await here.register("a.test", parse_duty(""))
    both = {"a.test": parse_duty(""), "b.test": parse_duty("s2 -old")}
    while (await follower.next(Register)).duties != both:
        pass
    late = follow(here)
    assert (await late.next(Register)).duties == both
    assert await late.next(Complete) == Complete(frozenset())
    api.remove("gatepost-dkim-domains")
    assert await late.next(Register) == Register({})


async def test_a_register_whose_labels_were_taken_is_labelled_again(
    store: KubernetesStore, api: KubernetesApi, follow: Follow
) -> None:
    await store.register("a.test", parse_duty("s1"))
    api.edit("gatepost-dkim-domains", lambda secret: secret["metadata"].update(labels={}))
    follower = follow(store)
    assert await follower.next(Register) == Register({})
    await store.register("b.test", parse_duty("s1"))
    assert (await follower.next(Register)).duties.keys() == {"a.test", "b.test"}


async def test_a_register_of_thousands_of_domains_is_followed(
    store: KubernetesStore, api: KubernetesApi, follow: Follow
) -> None:
    """A line of a watch is then longer than what an HTTP client reads by itself."""
    await store.register("a.test", parse_duty("s1"))
    line = base64.b64encode(b"rsa20260101").decode()
    lines = {f"a-domain-with-a-long-name-{n}.test": line for n in range(5000)}
    follower = follow(store)
    await follower.next(Complete)
    api.edit("gatepost-dkim-domains", lambda secret: secret["data"].update(lines))
    assert len((await follower.next(Register)).duties) == 5001
    assert api.requests.count(("list", "")) == 1


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        (".".join(["a" * 63] * 3 + ["test"]), "s" * 41),
        ("xn--bcher-kva.1.test", "2026.a-b.c"),
        ("a.test", "s" * 63),
        ("a.test", ".".join(["s" * 63] * 3)),
    ],
    ids=["long", "dots", "label", "labels"],
)
async def test_all_names_that_keys_can_have_are_names_that_secrets_can_have(
    stores: tuple[KubernetesStore, KubernetesStore], follow: Follow, domain: str, selector: str
) -> None:
    here, there = stores
    private = generate(KeyType.ED25519, bits=256)
    key = Key(
        domain=domain,
        selector=selector,
        key_type=private.key_type,
        bits=private.bits,
        public=private.public,
        created=_NOW,
        request_id="r" * 128,
        predecessor=selector,
    )
    made = await here.create(key, private)
    changed = await here.update(made, made.key.stepped(Step.ACTIVATE_UNSEEN, _NOW))
    await here.register(domain, parse_duty(f"{selector} -{selector}x"[:128]))
    assert (await follow(there).next(Entry)).key == changed.key
    assert domain in (await follow(there).next(Register)).duties


async def test_a_secret_that_somebody_made_immutable_is_told(
    store: KubernetesStore, api: KubernetesApi
) -> None:
    await store.register("a.test", parse_duty("s1"))
    api.edit("gatepost-dkim-domains", lambda secret: secret.update(immutable=True))
    with pytest.raises(StoreUnavailableError, match="answers 422 Invalid"):
        await store.register("a.test", parse_duty(""))
