"""The rendered configuration is one that the services take, and the objects say what it says."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.config.loader import load
from services.common.config.model import Config
from services.common.config.source import NEEDS_RESTART
from services.common.config.types import format_duration, parse_duration
from services.common.shutdown import longest
from tests.support.chart import CHART, SERVICES, Chart, Refused, container, render

VALUES_FILES = ("values.yaml", *sorted(path.name for path in CHART.glob("values-*.yaml")))
COMPONENTS = (*SERVICES, "topology")

OTHER_CONFIG: dict[str, Any] = {
    "config": {
        "smtp": {
            "hostname": "mx.example.org",
            "listeners": [
                {"name": "mx", "port": 3025},
                {"name": "inside", "port": 3026, "tls": "none"},
            ],
        },
        "services": {
            "ingress": {"http": "0.0.0.0:8001"},
            "policy": {"http": "[::]:8002", "grpc": "[::]:8102"},
            "delivery": {"http": "0.0.0.0:8003", "grpc": "0.0.0.0:8103"},
            "keys": {"http": "0.0.0.0:8004", "grpc": "0.0.0.0:8104"},
            "grace_period": "1.5m",
        },
    },
    "pods": {"stopDelaySeconds": 7},
}
RENDERINGS = [pytest.param(partial(render, files=[file]), id=file) for file in VALUES_FILES] + [
    pytest.param(partial(render, OTHER_CONFIG), id="other ports")
]


def loaded(chart: Chart, component: str, folder: Path) -> Config:
    """What the component's own loader makes of its ConfigMap."""
    file = folder / "gatepost.yaml"
    file.write_text(chart.config_text(component), encoding="utf-8")
    return load(file)


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_the_loader_takes_every_configmap(
    rendering: partial[Chart], component: str, tmp_path: Path
) -> None:
    config = loaded(rendering(), component, tmp_path)
    assert config.nats.username == component
    assert config.smtp.tls.certificate_file == Path("/etc/gatepost/tls/tls.crt")


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("service", SERVICES)
def test_ports_and_probes_are_those_of_the_configuration(
    rendering: partial[Chart], service: str, tmp_path: Path
) -> None:
    chart = rendering()
    config = loaded(chart, service, tmp_path)
    section = getattr(config.services, service)
    expected = {"http": section.http.port}
    if service == "ingress":
        expected |= {listener.name: listener.port for listener in config.smtp.listeners}
    else:
        expected["grpc"] = section.grpc.port
    box = container(chart.pod(service))
    assert {port["name"]: port["containerPort"] for port in box["ports"]} == expected
    assert box["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert box["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert box["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_has_the_time_that_its_process_may_take(
    rendering: partial[Chart], service: str, tmp_path: Path
) -> None:
    chart = rendering()
    config = loaded(chart, service, tmp_path)
    pod = chart.pod(service)
    delay = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    process = longest(grace=config.services.grace_period.total_seconds())
    assert pod["spec"]["terminationGracePeriodSeconds"] == delay + process


@pytest.mark.parametrize("text", ["30s", "1m", "0.5h", "1500ms", "90s", "1d", "0", "2.5 m"])
def test_durations_mean_to_the_chart_what_they_mean_to_the_services(text: str) -> None:
    chart = render({"config": {"services": {"grace_period": text}}})
    spec = chart.pod("policy")["spec"]
    grace = spec["terminationGracePeriodSeconds"] - 25
    exact = parse_duration(text).total_seconds()
    assert exact <= grace < exact + 1, format_duration(parse_duration(text))


@pytest.mark.parametrize("service", ["policy", "delivery", "keys"])
def test_services_are_reached_where_they_listen(service: str, tmp_path: Path) -> None:
    for values in ({}, OTHER_CONFIG):
        chart = render(values)
        found = chart.one("Service", service)["spec"]
        assert found["clusterIP"] == "None", "clients could not see the replicas"
        section = getattr(loaded(chart, "ingress", tmp_path).services, service)
        assert [port["port"] for port in found["ports"]] == [section.grpc.port]
        host, _, port = section.reached_at.rpartition(":")
        assert host == f"{chart.one('Service', service)['metadata']['name']}.mail.svc.cluster.local"
        assert int(port) == section.grpc.port


def test_the_service_maps_the_well_known_ports_to_the_listeners() -> None:
    spec = render().one("Service", "ingress")["spec"]
    assert {port["port"]: port["targetPort"] for port in spec["ports"]} == {
        25: "mx",
        587: "submission",
        465: "submissions",
    }


def test_submission_can_have_a_service_of_its_own() -> None:
    chart = render({"ingress": {"submissionService": {"enabled": True, "type": "LoadBalancer"}}})
    assert [port["port"] for port in chart.one("Service", "ingress")["spec"]["ports"]] == [25]
    apart = chart.one("Service", "submission")["spec"]
    assert [port["port"] for port in apart["ports"]] == [587, 465]
    assert apart["externalTrafficPolicy"] == "Local"


ONLY_MX: dict[str, Any] = {"smtp": {"listeners": [{"name": "mx", "port": 2525}]}}
LIKE_THE_DEFAULTS = {"mx": 25, "submission": 587, "submissions": 465}


@pytest.mark.parametrize("apart", [True, False])
def test_ports_that_nobody_wrote_need_no_listener(apart: bool) -> None:
    chart = render({"config": ONLY_MX, "ingress": {"submissionService": {"enabled": apart}}})
    (service,) = [each for each in chart.of("Service") if "ingress" in each["metadata"]["name"]]
    assert [port["port"] for port in service["spec"]["ports"]] == [25]


def test_what_counts_as_written_by_nobody_is_what_the_values_say() -> None:
    ports = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["ingress"]
    assert ports["service"]["ports"] == LIKE_THE_DEFAULTS
    assert ports["submissionService"]["ports"].items() <= LIKE_THE_DEFAULTS.items()
    render({"config": ONLY_MX, "ingress": {"service": {"ports": LIKE_THE_DEFAULTS}}})


@pytest.mark.parametrize(
    ("written", "what"),
    [
        pytest.param({"ports": {"submission": 2000}}, "ports.submission", id="moved"),
        pytest.param({"ports": {"smtp": 26}}, "ports.smtp", id="added"),
        pytest.param({"nodePorts": {"smtp": 30026}}, "nodePorts.smtp", id="of nodes"),
    ],
)
@pytest.mark.parametrize("service", ["service", "submissionService"])
def test_ports_that_somebody_wrote_need_a_listener(
    service: str, written: dict[str, Any], what: str
) -> None:
    ingress: dict[str, Any] = {"submissionService": {"enabled": True}}
    ingress[service] = ingress.get(service, {}) | written
    with pytest.raises(Refused, match=rf"ingress\.{service}\.{what}: .* \(there are: mx\)"):
        render({"config": ONLY_MX, "ingress": ingress})


PROXY_ANNOTATIONS = {
    "aws": ("service.beta.kubernetes.io/aws-load-balancer-proxy-protocol", "*"),
    "digitalocean": ("service.beta.kubernetes.io/do-loadbalancer-enable-proxy-protocol", "true"),
    "hetzner": ("load-balancer.hetzner.cloud/uses-proxyprotocol", "true"),
    "openstack": ("loadbalancer.openstack.org/proxy-protocol", "true"),
}


@pytest.mark.parametrize("provider", [*PROXY_ANNOTATIONS, ""])
def test_the_proxy_protocol_is_on_at_both_ends(provider: str, tmp_path: Path) -> None:
    chart = render(
        {
            "ingress": {
                "proxyProtocol": {"trusted": ["192.0.2.0/28"], "provider": provider},
                "service": {"type": "LoadBalancer", "annotations": {"mine": "too"}},
                "submissionService": {"enabled": True, "type": "LoadBalancer"},
            }
        }
    )
    for listener in loaded(chart, "ingress", tmp_path).smtp.listeners:
        assert listener.proxy_protocol is not None
        assert [str(each) for each in listener.proxy_protocol.trusted] == ["192.0.2.0/28"]
    wanted = dict([PROXY_ANNOTATIONS[provider]] if provider else [])
    annotations = chart.one("Service", "ingress")["metadata"]["annotations"]
    assert annotations == {"mine": "too", **wanted}
    apart = chart.one("Service", "submission")["metadata"]
    assert apart.get("annotations", {}) == wanted


def test_a_listener_with_proxies_of_its_own_keeps_them(tmp_path: Path) -> None:
    listeners = [
        {"name": "mx", "port": 2525, "proxy_protocol": {"trusted": ["198.51.100.1"]}},
        {"name": "submission", "port": 2587, "role": "submission"},
    ]
    values = {
        "config": {"smtp": {"listeners": listeners}},
        "ingress": {
            "proxyProtocol": {"trusted": ["192.0.2.1"]},
        },
    }
    found = loaded(render(values), "ingress", tmp_path).smtp.listeners
    assert [str(each.proxy_protocol.trusted[0]) for each in found if each.proxy_protocol] == [
        "198.51.100.1/32",
        "192.0.2.1/32",
    ]


def test_what_the_operator_configures_wins(tmp_path: Path) -> None:
    config = {
        "smtp": {"hostname": "mx.example.org", "require_tls": False},
        "nats": {"username": "mine"},
        "policy": {"actions": {"spf_mismatch": "refuse"}},
        "domains": {"relay": {"example.net": "smtp:10.0.0.5:2526"}},
    }
    found = loaded(render({"config": config}), "policy", tmp_path)
    assert found.smtp.hostname == "mx.example.org"
    assert found.nats.username == "mine"
    assert set(found.domains.relay) == {"example.net"}
    assert found.policy.actions.spf_mismatch == "refuse"


def test_the_domain_of_the_test_is_nobodys(tmp_path: Path) -> None:
    """Who may send to a relay domain is the world."""
    for values in ({}, {"test": {"enabled": False}}):
        found = loaded(render(values), "policy", tmp_path)
        assert (found.domains, found.policy) == (Config().domains, Config().policy)
    assert found.delivery.sender_smarthosts == {}


def test_the_test_submits_where_one_can_log_in() -> None:
    args = container(render().pod("test"))["args"]
    assert args[1:3] == ["post-gatepost-ingress.mail.svc.cluster.local:587", "starttls"]
    apart = {"enabled": True, "ports": {"submissions": 4465}}
    plain = {"name": "submission", "port": 2587, "role": "submission", "tls": "none"}
    inside = {"name": "submissions", "port": 2465, "role": "submission", "tls": "implicit"}
    values = {"config": {"smtp": {"listeners": [plain, inside]}}}
    args = container(render(values | {"ingress": {"submissionService": apart}}).pod("test"))["args"]
    assert args[1:3] == ["post-gatepost-submission.mail.svc.cluster.local:4465", "implicit"]


@pytest.mark.parametrize("role", ["mx", "submission"])
def test_without_logins_there_is_no_test(role: str, tmp_path: Path) -> None:
    listeners = [{"name": "only", "port": 2525, "role": role, "tls": "none"}]
    chart = render({"config": {"smtp": {"listeners": listeners}}})
    assert not [each for each in chart.objects if each["metadata"]["name"].endswith("-test")]
    assert loaded(chart, "delivery", tmp_path).delivery.sender_smarthosts == {}


def _restart_mark(config: dict[str, Any]) -> str:
    annotations = render({"config": config}).pod("policy")["metadata"]["annotations"]
    return str(annotations["checksum/restart"])


CHANGES_THAT_NEED_A_RESTART: dict[str, dict[str, Any]] = {
    "smtp.hostname": {"smtp": {"hostname": "mx.example.org"}},
    "smtp.listeners": {
        "smtp": {
            "listeners": [
                {"name": "mx", "port": 2526},
                {"name": "submission", "port": 2587},
                {"name": "submissions", "port": 2465},
            ]
        }
    },
    "services": {"services": {"grace_period": "31s"}},
    "nats": {"nats": {"events_max_age": "1d"}},
    "keys": {"keys": {"publication_servers": ["192.0.2.1"]}},
    "dns": {"dns": {"timeout": "6s"}},
    "auth": {"auth": {"tokens_directory": "/tokens"}},
    "log": {"log": {"level": "debug"}},
}


def test_every_setting_that_needs_a_restart_is_tried() -> None:
    sections = {key.partition(".")[0] if key.startswith("keys.") else key for key in NEEDS_RESTART}
    assert set(CHANGES_THAT_NEED_A_RESTART) == sections


@pytest.mark.parametrize("config", CHANGES_THAT_NEED_A_RESTART.values(), ids=str)
def test_a_change_that_needs_a_restart_makes_one(config: dict[str, Any]) -> None:
    assert _restart_mark(config) != _restart_mark({})


def test_files_of_the_certificate_are_exchanged_without_a_restart_but_not_taken_away() -> None:
    files = {"certificate_file": "/mine/tls.crt", "key_file": "/mine/tls.key"}
    further = {"further": [files]}
    for tls in (files, further):
        assert _restart_mark({"smtp": {"tls": tls}}) == _restart_mark({})
    none = {"certificate_file": None, "key_file": None}
    assert _restart_mark({"smtp": {"tls": none}}) != _restart_mark({})


def test_other_changes_restart_nothing() -> None:
    assert _restart_mark({"delivery": {"retry": {"max_retries": 3}}}) == _restart_mark({})


def test_the_configuration_is_mounted_so_that_changes_arrive() -> None:
    """A file mounted by `subPath` never changes."""
    for component, pod in render().pods():
        for mount in container(pod)["volumeMounts"]:
            assert "subPath" not in mount, component
