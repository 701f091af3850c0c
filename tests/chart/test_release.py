"""The life of a release, with Helm's own hands: what upgrades keep, and what is left at the end."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.policy.account_file import parse_accounts
from tests.chart.test_values import EVERYTHING, HELMS
from tests.support.chart import CHART, NAMESPACE, NEWEST, RELEASE, Refused, helm, render
from tests.support.cluster_api import ClusterApi

MADE = ("accounts", "nats-auth", "tls", "tokens")
"""Secrets that the chart makes where none is named."""


@pytest.fixture
def api() -> Iterator[ClusterApi]:
    with ClusterApi(
        (each["apiVersion"], each["kind"]) for each in render(EVERYTHING).objects
    ) as it:
        yield it


pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Release:
    """One release in a cluster."""

    def __init__(self, api: ClusterApi, folder: Path, name: str) -> None:
        self._kubeconfig = api.write_kubeconfig(folder)
        self._name = name
        self._api = api

    def run(self, *command: str, values: dict[str, Any] | None = None) -> str:
        chart = () if command[0] == "uninstall" else (str(CHART), "--values", "-")
        place = ("--namespace", NAMESPACE, "--kubeconfig", str(self._kubeconfig))
        openapi = () if command[0] == "uninstall" else ("--disable-openapi-validation",)
        arguments = (*command, RELEASE, *chart, *place, *openapi)
        return helm(*arguments, name=self._name, given=yaml.safe_dump(values or {}))

    def secrets(self) -> dict[str, dict[str, str]]:
        """What is in the Secrets that the chart made, by their names without the release's."""
        prefix = f"{RELEASE}-gatepost-"
        return {
            name.removeprefix(prefix): {
                key: base64.b64decode(text).decode() for key, text in secret["data"].items()
            }
            for name, secret in self._api.of("Secret").items()
        }


@pytest.fixture
def release(api: ClusterApi, tmp_path: Path) -> Release:
    return Release(api, tmp_path, NEWEST)


@pytest.mark.parametrize("name", HELMS)
def test_secrets_that_were_made_survive_upgrades(
    api: ClusterApi, tmp_path: Path, name: str
) -> None:
    release = Release(api, tmp_path, name)
    release.run("install")
    first = release.secrets()
    assert first.keys() == set(MADE)
    release.run("upgrade", values={"config": {"log": {"level": "debug"}}})
    assert release.secrets() == first


def test_the_notes_tell_how_to_read_a_password_that_logs_in(release: Release) -> None:
    notes = release.run("install")
    address = "submission@post-gatepost-ingress.mail.svc.cluster.local"
    assert address in notes
    assert "kubectl get secret --namespace mail post-gatepost-accounts" in notes
    secret = release.secrets()["accounts"]
    (account,) = parse_accounts(secret["accounts.yaml"].encode()).accounts
    assert str(account.address) == secret["address"] == address
    assert account.password == secret["password"]
    assert len(account.password) == 24


def test_another_address_keeps_its_password(release: Release) -> None:
    release.run("install")
    password = release.secrets()["accounts"]["password"]
    notes = release.run("upgrade", values={"accounts": {"address": "shop@example.com"}})
    assert "shop@example.com" in notes
    (account,) = parse_accounts(release.secrets()["accounts"]["accounts.yaml"].encode()).accounts
    assert (str(account.address), account.password) == ("shop@example.com", password)


def test_a_secret_that_lost_a_part_gets_it_anew_and_keeps_the_rest(
    release: Release, api: ClusterApi
) -> None:
    release.run("install")
    before = release.secrets()
    del api.of("Secret")["post-gatepost-nats-auth"]["data"]["route"]
    release.run("upgrade")
    after = release.secrets()
    assert after["nats-auth"].pop("route") != before["nats-auth"].pop("route")
    assert after == before


def test_uninstall_leaves_what_it_says(release: Release, api: ClusterApi) -> None:
    """The volumes of NATS are made by Kubernetes, and kept by the StatefulSet's own word."""
    values = {key: value for key, value in EVERYTHING.items() if key != "tls"}
    notes = release.run("install", values=values)
    assert "the volume post-gatepost-mailbox" in notes
    retention = api.of("StatefulSet")["post-gatepost-nats"]["spec"]
    assert retention["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    release.run("uninstall")
    assert api.names() == {"PersistentVolumeClaim post-gatepost-mailbox"}


def test_a_rollback_brings_back_what_was(release: Release, api: ClusterApi) -> None:
    release.run("install")
    before, secrets = api.of("ConfigMap"), release.secrets()
    before = {name: each["data"] for name, each in before.items()}
    release.run("upgrade", values={"config": {"policy": {"actions": {"spf_mismatch": "refuse"}}}})
    assert {name: each["data"] for name, each in api.of("ConfigMap").items()} != before
    helm(
        *("rollback", RELEASE, "1", "--namespace", NAMESPACE),
        *("--kubeconfig", str(release._kubeconfig)),
        name=release._name,
    )
    assert {name: each["data"] for name, each in api.of("ConfigMap").items()} == before
    assert release.secrets() == secrets


def _nats(**values: Any) -> dict[str, Any]:
    return {"nats": values}


NATS = "post-gatepost-nats"
CLAIM = f"data-{NATS}-{{}}"


def _made_claims(api: ClusterApi, *numbers: int, size: str = "10Gi") -> None:
    """The volumes that Kubernetes makes for a StatefulSet."""
    for number in numbers:
        api.objects["persistentvolumeclaims", CLAIM.format(number)] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM.format(number)},
            "spec": {"resources": {"requests": {"storage": size}}},
        }


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("state", ["running", "scaled to 0", "uninstalled"])
def test_an_upgrade_between_one_node_and_three_loses_nothing(
    release: Release, api: ClusterApi, before: int, after: int, state: str
) -> None:
    release.run("install", values=_nats(replicas=before))
    _made_claims(api, *range(before))
    if state == "scaled to 0":
        api.of("StatefulSet")[NATS]["spec"]["replicas"] = 0
    if state == "uninstalled":
        release.run("uninstall")
    verb = "install" if state == "uninstalled" else "upgrade"
    with pytest.raises(Refused, match=r"nats\.replicas: .*From one NATS node to three.*operate"):
        release.run(verb, values=_nats(replicas=after))
    release.run(verb, values=_nats(replicas=before))


def test_the_way_from_one_node_to_three_is_open(release: Release, api: ClusterApi) -> None:
    """As docs/operate.md has it: without the StatefulSet and its volumes nothing can be lost."""
    release.run("install")
    secrets = release.secrets()
    del api.objects["statefulsets", NATS]
    release.run("upgrade", values=_nats(replicas=3))
    assert api.of("StatefulSet")[NATS]["spec"]["replicas"] == 3
    assert release.secrets() == secrets


def test_a_cluster_that_lost_a_volume_is_still_one(release: Release, api: ClusterApi) -> None:
    release.run("install", values=_nats(replicas=3))
    _made_claims(api, 0, 2)
    api.of("StatefulSet")[NATS]["spec"]["replicas"] = 0
    release.run("upgrade", values=_nats(replicas=3))
    assert api.of("StatefulSet")[NATS]["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("storage", "key"), [({"size": "20Gi"}, "size"), ({"className": "fast"}, "className")]
)
def test_what_kubernetes_does_not_change_is_refused_with_the_way(
    release: Release, api: ClusterApi, storage: dict[str, str], key: str
) -> None:
    release.run("install")
    with pytest.raises(Refused, match=rf"nats\.storage\.{key}: .*A larger volume for NATS"):
        release.run("upgrade", values=_nats(storage=storage))
    release.run("upgrade", values=_nats(storage={"size": "10240Mi"}))


def test_a_larger_volume_comes_before_what_may_fill_it(release: Release, api: ClusterApi) -> None:
    release.run("install")
    _made_claims(api, 0)
    del api.objects["statefulsets", NATS]
    larger = _nats(storage={"size": "1024Gi"})
    with pytest.raises(Refused, match=f"nats.storage.size: the volume of {CLAIM.format(0)} has"):
        release.run("upgrade", values=larger)
    _made_claims(api, 0, size="1Ti")
    release.run("upgrade", values=larger)
    (template,) = api.of("StatefulSet")[NATS]["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "1024Gi"
