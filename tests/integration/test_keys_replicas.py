"""Two replicas of the keys service and the Secrets that they share."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support.keys_domain import KeysDomain, refusal
from tests.support.keys_process import KeysProcess
from tests.support.kubernetes_api import KubernetesApi

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_WAIT_SECONDS = 60.0


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture
def replicas(api: KubernetesApi, tmp_path: Path) -> Iterator[tuple[KeysProcess, KeysProcess]]:
    environment = {"KUBECONFIG": str(api.write_kubeconfig(tmp_path))}
    config = {"keys": {"store": "kubernetes"}}
    first, second = (
        KeysProcess(tmp_path / name, config, environment=environment) for name in ("a", "b")
    )
    first.spawn()
    second.start()
    _wait(first.ready)
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def here(replicas: tuple[KeysProcess, KeysProcess]) -> KeysDomain:
    return KeysDomain(replicas[0])


@pytest.fixture
def there(here: KeysDomain, replicas: tuple[KeysProcess, KeysProcess]) -> KeysDomain:
    return here.at(replicas[1])


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _secret(key: pb.Key) -> str:
    return f"{key.selector}.domainkey.{key.domain}"


def _garbage(secret: dict[str, Any]) -> None:
    secret["data"]["private.pem"] = base64.b64encode(b"garbage").decode()


def test_a_key_made_at_one_signs_at_the_other(here: KeysDomain, there: KeysDomain) -> None:
    key = here.active()
    _wait(lambda: there.signers == [key.selector])
    there.call("RetireKey", selector=key.selector, leave_unsigned=True)
    _wait(lambda: here.signers == [])


def test_one_request_sent_to_both_makes_one_key(here: KeysDomain, there: KeysDomain) -> None:
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda at: at.create(request_id="r-1"), (here, there)))
    assert made[0] == made[1]
    assert here.all_keys() == [made[0]]


def test_two_wishes_at_once_get_two_selectors(here: KeysDomain, there: KeysDomain) -> None:
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda at: at.create(), (here, there)))
    assert made[0].selector != made[1].selector
    _wait(lambda: len(here.all_keys()) == len(there.all_keys()) == 2)


def test_a_secret_edited_to_garbage(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi
) -> None:
    key = here.active()
    _wait(lambda: there.signers == [key.selector])
    good = api.secrets()[_secret(key)]
    api.edit(_secret(key), _garbage)
    _wait(lambda: "damaged" in here.key(key.selector).notes[0])
    assert here.signers == [key.selector]
    assert here.process.sample("gatepost_keys_damaged_keys") == 1
    # A replica that starts now has nothing good to go on with: its mail waits.
    there.process.kill()
    there.process.start()
    code, reason, _ = refusal(there.sign)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_KEY")
    api.edit(_secret(key), lambda secret: secret.update(data=good["data"]))
    _wait(lambda: here.process.sample("gatepost_keys_damaged_keys") == 0)
    _wait(lambda: there.process.sample("gatepost_keys_damaged_keys") == 0)
    assert there.signers == [key.selector]


def test_a_secret_removed(here: KeysDomain, api: KubernetesApi) -> None:
    key = here.active()
    good = api.secrets()[_secret(key)]
    api.remove(_secret(key))
    _wait(lambda: "removed" in here.key(key.selector).notes[0])
    assert here.signers == [key.selector]
    assert "stored key was removed while it signs" in here.process.log
    api.edit(_secret(key), lambda secret: secret.update(good))  # kubectl apply, of the backup
    _wait(lambda: here.process.sample("gatepost_keys_damaged_keys") == 0)
    assert here.signers == [key.selector]


def test_a_sole_secret_that_vanished_while_everybody_was_down(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi
) -> None:
    key = here.active()
    good = api.secrets()[_secret(key)]
    register = api.secrets()["gatepost-dkim-domains"]
    assert base64.b64decode(register["data"][here.name]) == key.selector.encode()
    for each in (here, there):
        each.process.kill()
    api.remove(_secret(key))
    for each in (here, there):
        each.process.start()
        assert refusal(each.sign)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_KEY")
        assert each.process.sample("gatepost_keys_waiting_domains") == 1
    api.edit(_secret(key), lambda secret: secret.update(good))
    _wait(lambda: here.process.sample("gatepost_keys_waiting_domains") == 0)
    _wait(lambda: there.process.sample("gatepost_keys_waiting_domains") == 0)
    assert here.signers == there.signers == [key.selector]


def test_a_lost_key_given_up_at_one_is_forgotten_at_the_other(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi
) -> None:
    key = here.active()
    _wait(lambda: there.signers == [key.selector])
    here.process.kill()
    api.remove(_secret(key))
    here.process.start()
    assert refusal(here.sign)[1] == "NO_USABLE_KEY"
    # The other one remembers the key, and goes on with what was good.
    assert there.signers == [key.selector]
    here.call("RetireKey", selector=key.selector, leave_unsigned=True)
    assert here.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    _wait(lambda: there.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY)


def test_a_register_that_is_removed_is_written_again(here: KeysDomain, api: KubernetesApi) -> None:
    here.active()
    before = api.secrets()["gatepost-dkim-domains"]["data"]
    api.remove("gatepost-dkim-domains")
    here.process.kill()
    here.process.start()
    _wait(lambda: "gatepost-dkim-domains" in api.secrets())
    assert api.secrets()["gatepost-dkim-domains"]["data"] == before


@pytest.mark.parametrize("damage", ["garbage", "removed"])
def test_a_damaged_key_can_be_retired_and_is_whole_again(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi, damage: str
) -> None:
    key = here.active()
    _wait(lambda: there.signers == [key.selector])
    if damage == "garbage":
        api.edit(_secret(key), _garbage)
    else:
        api.remove(_secret(key))
    _wait(lambda: "damaged" in here.key(key.selector).notes[0])
    here.call("RetireKey", selector=key.selector, leave_unsigned=True)
    _wait(lambda: there.key(key.selector).state == pb.KEY_STATE_RETIRING)
    assert "damaged" not in there.key(key.selector).notes[0]
    assert api.secrets()[_secret(key)]["metadata"]["labels"]["gatepost/state"] == "retiring"


def test_the_api_server_away_for_a_while(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi
) -> None:
    key = here.active()
    _wait(lambda: there.signers == [key.selector])
    api.stop()
    _wait(lambda: here.process.sample("gatepost_keys_store_readable") == 0)
    assert here.signers == there.signers == [key.selector]
    code, reason, text = refusal(here.create)
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert "cannot be reached" in text
    api.start()
    _wait(lambda: here.process.sample("gatepost_keys_store_readable") == 1)
    assert here.create().state == pb.KEY_STATE_PENDING


def test_a_replica_that_starts_without_the_api_server_is_not_ready_and_signs_later(
    here: KeysDomain, there: KeysDomain, api: KubernetesApi
) -> None:
    key = here.active()
    there.process.kill()
    api.stop()
    there.process.spawn()
    _wait(lambda: "keys cannot be read" in there.process.log)
    assert not there.process.ready()
    # It cannot know that the domain has no key, so it does not say so.
    assert refusal(there.sign)[:2] == (grpc.StatusCode.UNAVAILABLE, "KEYS_NOT_LOADED")
    api.start()
    _wait(there.process.ready)
    assert there.signers == [key.selector]


def test_what_the_role_lacks_is_told(here: KeysDomain, api: KubernetesApi) -> None:
    api.verbs.discard("create")
    code, _, text = refusal(here.create)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert 'cannot create resource "secrets"' in text


def test_a_key_in_a_secret_of_others_is_imported(here: KeysDomain, api: KubernetesApi) -> None:
    private = generate(KeyType.RSA, bits=1024)
    data = {"dkim.key": base64.b64encode(private.pem()).decode()}
    api.edit("old-server", lambda secret: secret.update(data=data))
    key = here.call("ImportKey", selector="old", secret_name="old-server").key
    assert key.dns_record.value == f"v=DKIM1; k=rsa; p={private.public}"
    assert api.secrets()["old-server"]["data"] == data
    here.activate(key, override=True)
    assert here.signers == ["old"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"secret_name": "missing"}, "no such Secret"),
        ({"secret_name": "../pods/x"}, "cannot be the name"),
        ({"secret_name": "two"}, "has 2 fields"),
        ({"secret_name": "two", "secret_field": "c"}, "no such field"),
        ({"secret_name": "two", "secret_field": "a"}, "not a private key"),
        ({"secret_name": "two", "private_key_pem": b"x"}, "either"),
        ({}, "either"),
    ],
)
def test_what_is_no_key_is_not_imported(
    here: KeysDomain, api: KubernetesApi, fields: dict[str, Any], why: str
) -> None:
    api.edit("two", lambda secret: secret.update(data={"a": "AAAA", "b": "AAAA"}))
    code, reason, text = refusal(lambda: here.call("ImportKey", selector="old", **fields))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PRIVATE_KEY")
    assert why in text
