"""What a user gives the chart: values that render, and mistakes that are refused by their path."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, NEWEST, OLDEST, ROOT, Refused, helm, render

HELMS = (NEWEST, OLDEST)
VALUES_FILES = ("values.yaml", *sorted(path.name for path in CHART.glob("values-*.yaml")))


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize("file", VALUES_FILES)
def test_every_values_file_renders(file: str, name: str) -> None:
    assert render(files=[file], name=name).of("Deployment")


@pytest.mark.parametrize("file", VALUES_FILES)
def test_the_oldest_and_the_newest_helm_render_the_same(file: str) -> None:
    made_anew = {"Secret"}  # passwords, tokens and a certificate, other ones each time
    first, second = (
        [each for each in render(files=[file], name=name).objects if each["kind"] not in made_anew]
        for name in HELMS
    )
    by_name = lambda each: (each["kind"], each["metadata"]["name"])  # noqa: E731
    assert sorted(first, key=by_name) == sorted(second, key=by_name)


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize("file", VALUES_FILES)
def test_lint_finds_nothing(file: str, name: str) -> None:
    helm("lint", "--strict", "--values", str(CHART / file), str(CHART), name=name)


EVERYTHING: dict[str, Any] = {
    "config": {
        "domains": {"local": ["example.org"], "relay": {"example.net": "lmtp:dovecot.mail:24"}},
        "delivery": {"smarthost": {"host": "smtp.example.com", "username": "me"}},
        "policy": {"actions": {"sender_unreachable": "spam"}},
    },
    "mailbox": {"enabled": True, "accessModes": ["ReadWriteMany"]},
    "accounts": {"address": "you@example.org"},
    "ingress": {
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}, "nodePorts": {"mx": 30025}},
        "submissionService": {"enabled": True, "type": "NodePort"},
        "autoscaling": {"enabled": True},
    },
    "policy": {"autoscaling": {"enabled": True}},
    "delivery": {"keda": {"enabled": True}, "smarthostSecret": {"name": "smarthost"}},
    "keys": {"autoscaling": {"enabled": True}},
    "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "ca", "kind": "Issuer"}}},
    "nats": {"replicas": 3, "tls": {"enabled": True}},
    "grpc": {
        "tls": {
            "enabled": True,
            "certManager": {"enabled": True, "issuerRef": {"name": "ca", "kind": "Issuer"}},
        }
    },
    "monitoring": {
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Mail"}},
    },
}


@pytest.mark.parametrize("name", HELMS)
def test_everything_at_once_renders(name: str) -> None:
    kinds = {each["kind"] for each in render(EVERYTHING, name=name).objects}
    assert kinds >= {
        *("Certificate", "PodMonitor", "PrometheusRule"),
        *("ScaledObject", "HorizontalPodAutoscaler"),
    }


def test_no_object_is_made_twice() -> None:
    found = [(each["kind"], each["metadata"]["name"]) for each in render(EVERYTHING).objects]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ingres", {"replicas": 2}),
        ("ingress.replica", 2),
        ("ingress.pods.nodeSelektor", {"a": "b"}),
        ("ingress.pods.stopDelaySeconds", 1),  # of all pods or of none
        ("ingress.service.type", "Loadbalancer"),
        ("ingress.proxyProtocol.provider", "gcp"),
        ("ingress.service.ports.mx", 0),
        ("pods.spread", [{"topologyKey": "zone"}]),
        ("nats.replicas", 2),
        ("nats.storage.size", "10G"),
        ("networkPolicy.extra.ingres", {}),
        ("config.smtp.requir_tls", True),
        ("config.smtp.max_message_size", "100 megabytes"),
        ("config.delivery.retry.interval", "often"),
        ("config.policy.actions.spf_mismatch", "reject"),
        ("config.smpt", {}),
        ("accounts.address", "you"),
    ],
)
@pytest.mark.parametrize("name", HELMS)
def test_a_mistake_is_refused_with_its_path(path: str, value: Any, name: str) -> None:
    values: dict[str, Any] = {}
    keys = path.split(".")
    inner = values
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = value
    with pytest.raises(Refused) as refused:
        render(values, name=name)
    *above, last = keys
    text = str(refused.value).replace("/", ".")
    assert last in text
    assert ".".join(above) in text


@pytest.mark.parametrize(
    ("values", "what_is_wrong"),
    [
        ({"nats": {"enabled": False}}, "config.nats.urls"),
        (
            {"nats": {"enabled": False}, "config": {"nats": {"urls": ["nats://n:4222"]}}},
            "nats.auth.existingSecret",
        ),
        (
            {
                "nats": {
                    "enabled": False,
                    "tls": {"enabled": True},
                    "auth": {"existingSecret": "mine"},
                },
                "config": {"nats": {"urls": ["tls://n:4222"]}},
            },
            "nats.tls.existingSecret",
        ),
        ({"ingress": {"proxyProtocol": {"provider": "aws"}}}, "ingress.proxyProtocol.trusted"),
        ({"config": {"domains": {"local": ["example.org"]}}}, "mailbox.enabled"),
        ({"config": {"mailbox": {"kind": "lmtp"}}}, "config.mailbox.lmtp"),
        ({"ingress": {"service": {"ports": {"smtp": 25}}}}, "ingress.service.ports.smtp"),
        ({"config": {"smtp": {"listeners": [{"name": "mx", "port": 25}]}}}, "1024"),
        (
            {"config": {"smtp": {"listeners": [{"name": "a" * 16, "port": 2525}]}}},
            "15 letters",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    values: dict[str, Any], what_is_wrong: str
) -> None:
    with pytest.raises(Refused, match=what_is_wrong):
        render(values)


@pytest.mark.parametrize("tool", ["chart-schema", "chart-readme", "chart-dashboards"])
def test_what_is_generated_is_up_to_date(tool: str) -> None:
    """To mend: `make chart`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_value_is_explained() -> None:
    """Each key has a comment, its own or that of the same key in an earlier part."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    explained: set[str] = set()
    bare = []
    for number, line in enumerate(lines):
        key = line.strip().partition(":")[0]
        if not key or key.startswith(("#", "-")):
            continue
        if lines[number - 1].strip().startswith("#"):
            explained.add(key)
        elif key not in explained | _PLAIN:
            bare.append(f"{number + 1}: {key}")
    assert not bare


_PLAIN = {
    *("smtp", "service", "services", "enabled", "replicas", "repository", "annotations", "labels"),
    *("nodeSelector", "tolerations", "affinity", "resources", "requests", "limits", "size"),
    *("minReplicas", "maxReplicas", "cpuPercent", "auth", "storage", "certManager", "keda"),
    *("podMonitor", "interval", "pullPolicy", "apiServerPorts", "dnsPorts", "extraVolumeMounts"),
}
"""Words that say themselves what they are."""


def test_the_chart_has_the_version_of_the_code() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = Path(ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["appVersion"]}"' in project
