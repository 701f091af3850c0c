"""Every pod is one that a namespace with Pod Security "restricted" admits, and has no more than it
needs: no token, no Secret of others, no place to write."""

from functools import partial
from typing import Any

import pytest

from tests.chart.test_values import EVERYTHING
from tests.support import kubernetes_api
from tests.support.chart import Chart, container, render

RENDERINGS = [
    pytest.param(partial(render), id="default"),
    pytest.param(partial(render, files=["values-ha.yaml"]), id="ha"),
    pytest.param(partial(render, EVERYTHING), id="everything"),
]
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_pods_are_restricted(rendering: partial[Chart]) -> None:
    seen = set()
    for component, pod in rendering().pods():
        seen.add(component)
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), component
        assert spec["securityContext"]["runAsNonRoot"] is True, component
        assert spec["securityContext"]["runAsUser"] > 0, component
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, component
        assert not {"sysctls", "windowsOptions", "seLinuxOptions"} & spec["securityContext"].keys()
        for volume in spec.get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES, component
        assert "initContainers" not in spec, component
        box = container(pod)
        assert box["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, component
        assert all("hostPort" not in port for port in box.get("ports", [])), component
        assert all(port["containerPort"] >= 1024 for port in box.get("ports", [])), component
    assert seen >= {"ingress", "policy", "delivery", "keys", "nats", "topology", "test"}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_memory_is_limited_and_asked_for(rendering: partial[Chart]) -> None:
    for component, pod in rendering().pods():
        resources = container(pod)["resources"]
        assert resources["limits"]["memory"], component
        assert resources["requests"].keys() >= {"cpu", "memory"}, component


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_only_keys_has_a_token_for_the_api_server(rendering: partial[Chart]) -> None:
    holders = {
        component
        for component, pod in rendering().pods()
        if pod["spec"].get("automountServiceAccountToken", True)
    }
    assert holders == {"keys"}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_only_keys_may_read_secrets(rendering: partial[Chart]) -> None:
    chart = rendering()
    assert not chart.of("ClusterRole", "ClusterRoleBinding")
    (role,) = chart.of("Role")
    (binding,) = chart.of("RoleBinding")
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["secrets"])
    # Just what the store is tested with, imports among it: tests/support/kubernetes_api.py.
    assert set(rule["verbs"]) == kubernetes_api.VERBS
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["post-gatepost-keys"]
    assert chart.pod("keys")["spec"]["serviceAccountName"] == "post-gatepost-keys"


def test_the_namespace_of_the_keys_can_be_one_of_its_own() -> None:
    chart = render({"keys": {"namespace": "post-keys"}})
    for kind in ("Role", "RoleBinding"):
        assert chart.one(kind, "keys")["metadata"]["namespace"] == "post-keys"
    (subject,) = chart.one("RoleBinding", "keys")["subjects"]
    assert subject["namespace"] == "mail"
    assert "namespace: post-keys" in chart.config_text("keys")


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_every_component_has_an_account_of_its_own(rendering: partial[Chart]) -> None:
    chart = rendering()
    accounts = {each["metadata"]["name"] for each in chart.of("ServiceAccount")}
    for component, pod in chart.pods():
        if component != "test":
            assert pod["spec"]["serviceAccountName"] == f"post-gatepost-{component}"
            assert pod["spec"]["serviceAccountName"] in accounts
    assert all(not each["automountServiceAccountToken"] for each in chart.of("ServiceAccount"))


CERTIFICATE = {"tls.crt", "tls.key", "ca.crt"}
SECRETS: dict[str, dict[str, set[str]]] = {
    "ingress": {
        "tls": set(),
        "tokens": {"service.token"},
        "nats-auth": {"ingress"},
        "nats-tls": {"ca.crt"},
        "grpc-tls": {"ca.crt"},
    },
    "policy": {
        "tokens": {"service.token", "operator.token", "viewer.token"},
        "nats-auth": {"policy"},
        "accounts": {"accounts.yaml"},
        "nats-tls": {"ca.crt"},
        "grpc-tls": CERTIFICATE,
    },
    "delivery": {
        "tokens": {"service.token", "operator.token", "viewer.token"},
        "nats-auth": {"delivery"},
        "smarthost": {"password"},
        "nats-tls": {"ca.crt"},
        "grpc-tls": CERTIFICATE,
    },
    "keys": {
        "tokens": {"service.token", "operator.token", "viewer.token"},
        "grpc-tls": CERTIFICATE,
    },
    "topology": {"nats-auth": {"topology"}, "nats-tls": {"ca.crt"}},
    "test": {"tokens": {"operator.token"}, "grpc-tls": {"ca.crt"}},
    "nats": {"nats-tls": CERTIFICATE},
}


def test_each_pod_is_given_only_its_own_secrets() -> None:
    for component, pod in render(EVERYTHING).pods():
        found = {}
        for volume in pod["spec"].get("volumes", []):
            if "secret" in volume:
                secret = volume["secret"]
                name = secret["secretName"].removeprefix("post-gatepost-")
                found[name] = {item["key"] for item in secret.get("items", [])}
                assert secret["defaultMode"] == 0o440, component
        assert found == SECRETS[component], component


def test_secrets_of_ones_own_are_used_and_none_are_made() -> None:
    given: dict[str, Any] = {
        "tokens": {"existingSecret": "my-tokens"},
        "tls": {"existingSecret": "my-tls"},
        "nats": {
            "auth": {"existingSecret": "my-nats"},
            "tls": {"enabled": True, "existingSecret": "my-nats-tls"},
        },
        "grpc": {"tls": {"enabled": True, "existingSecret": "my-grpc-tls"}},
        "accounts": {"existingSecret": "my-accounts"},
    }
    from_values = {**EVERYTHING, **given}
    from_values["nats"] = {**EVERYTHING["nats"], **given["nats"]}
    from_values["accounts"] = {**EVERYTHING["accounts"], **given["accounts"]}
    chart = render(from_values)
    assert not chart.of("Secret", "Certificate")
    named = set()
    for _, pod in chart.pods():
        for volume in pod["spec"].get("volumes", []):
            named.add(volume.get("secret", {}).get("secretName"))
        for variable in container(pod).get("env", []):
            named.add(variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name"))
    assert named - {None} == {
        *("my-tokens", "my-tls", "my-nats", "my-accounts", "smarthost"),
        *("my-nats-tls", "my-grpc-tls"),
    }


def test_highly_available_means_spread_and_more_than_one() -> None:
    chart = render(files=["values-ha.yaml"])
    replicas = {
        each["metadata"]["name"]: each["spec"].get("replicas")
        for each in chart.of("Deployment", "StatefulSet")
    }
    scaled = {
        each["metadata"]["name"]: each["spec"] for each in chart.of("HorizontalPodAutoscaler")
    }
    for name, number in replicas.items():
        assert (number or scaled[name]["minReplicas"]) >= 2, name
    assert replicas["post-gatepost-nats"] == 3
    budgets = {each["metadata"]["name"]: each["spec"] for each in chart.of("PodDisruptionBudget")}
    assert budgets.keys() == replicas.keys()
    assert all(budget["maxUnavailable"] == 1 for budget in budgets.values())
    for each in chart.of("Deployment", "StatefulSet"):
        spread = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        hard = [rule for rule in spread if rule["whenUnsatisfiable"] == "DoNotSchedule"]
        assert [rule["topologyKey"] for rule in hard] == ["kubernetes.io/hostname"]
        assert hard[0]["labelSelector"] == each["spec"]["selector"]


ANTI_AFFINITY = {
    "preferred": "preferredDuringSchedulingIgnoredDuringExecution",
    "required": "requiredDuringSchedulingIgnoredDuringExecution",
}


@pytest.mark.parametrize("kind", ["preferred", "required", "none"])
def test_replicas_keep_off_each_others_nodes(kind: str) -> None:
    chart = render({"pods": {"antiAffinity": kind}})
    for each in chart.of("Deployment", "StatefulSet"):
        affinity = each["spec"]["template"]["spec"].get("affinity")
        if kind == "none":
            assert affinity is None
            continue
        (rule,) = affinity["podAntiAffinity"][ANTI_AFFINITY[kind]]
        term = rule.get("podAffinityTerm", rule)
        assert term["labelSelector"] == each["spec"]["selector"]
        assert term["topologyKey"] == "kubernetes.io/hostname"


def test_the_copies_of_the_queue_are_never_on_one_node() -> None:
    pod = render(files=["values-ha.yaml"]).pod("nats")
    assert ANTI_AFFINITY["required"] in pod["spec"]["affinity"]["podAntiAffinity"]


def test_ones_own_affinity_is_laid_over_it() -> None:
    mine = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"a": []}}}
    affinity = render({"pods": {"affinity": mine}}).pod("ingress")["spec"]["affinity"]
    assert affinity.keys() == {"nodeAffinity", "podAntiAffinity"}


def test_a_services_own_placement_is_laid_over_that_of_all() -> None:
    values = {
        "pods": {"nodeSelector": {"disk": "any"}, "priorityClassName": "mail"},
        "ingress": {"pods": {"nodeSelector": {"edge": "yes"}, "annotations": {"a": "b"}}},
    }
    chart = render(values)
    ingress, policy = (chart.pod(name) for name in ("ingress", "policy"))
    assert ingress["spec"]["nodeSelector"] == {"disk": "any", "edge": "yes"}
    assert ingress["metadata"]["annotations"]["a"] == "b"
    assert policy["spec"]["nodeSelector"] == {"disk": "any"}
    assert {pod["spec"]["priorityClassName"] for pod in (ingress, policy)} == {"mail"}


ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
RECREATE = {"type": "Recreate"}


@pytest.mark.parametrize(
    ("mailbox", "strategy"),
    [
        pytest.param({}, ROLLING, id="no volume"),
        pytest.param({"enabled": True}, RECREATE, id="default volume"),
        pytest.param({"enabled": True, "existingClaim": "mine"}, RECREATE, id="own volume"),
        pytest.param(
            {"enabled": True, "accessModes": ["ReadWriteOncePod"]}, RECREATE, id="one pod's"
        ),
        pytest.param(
            {"enabled": True, "accessModes": ["ReadWriteOnce", "ReadWriteMany"]},
            ROLLING,
            id="shared volume",
        ),
        pytest.param(
            {"enabled": True, "existingClaim": "mine", "accessModes": ["ReadWriteMany"]},
            ROLLING,
            id="own shared volume",
        ),
    ],
)
def test_a_volume_of_one_node_is_free_before_the_next_pod_needs_it(
    mailbox: dict[str, Any], strategy: dict[str, Any]
) -> None:
    """A pod on another node would wait for the volume for ever, and the old pod for that pod."""
    chart = render({"mailbox": mailbox})
    assert chart.one("Deployment", "delivery")["spec"]["strategy"] == strategy
    for service in ("ingress", "policy", "keys"):
        assert chart.one("Deployment", service)["spec"]["strategy"] == ROLLING
