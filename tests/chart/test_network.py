"""The network policies allow the edges that ARCHITECTURE.md lists, and no others."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from services.common.config.loader import load
from services.common.config.model import Config
from services.delivery.route import Hop, HopRoute, route_of
from tests.chart.test_values import EVERYTHING
from tests.support.chart import ROOT, SERVICES, Chart, Manifest, container, render

Edge = tuple[str, str]

# What the table calls them, and what the chart does.
WORDS: Mapping[str, tuple[str, ...]] = {
    "SMTP clients": ("anybody",),
    "SMTP servers of the world": ("anybody",),
    "HTTPS servers of the world": ("anybody",),
    "operators": ("operators",),
    "gatepost": ("operators",),
    "gatepost topology": ("topology",),
    "Prometheus": ("prometheus",),
    "the HTTP port of each": SERVICES,
    "Kubernetes API": ("api",),
    "DNS": ("dns",),
    "NATS": ("nats",),
    **{service: (service,) for service in SERVICES},
}


def table() -> set[Edge]:
    """The edges of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text.split("## The services")[0], re.MULTILINE
    )
    return {
        (start, end)
        for left, right in rows
        if left != "from"
        for start in _names(left)
        for end in _names(right)
    }


def _names(cell: str) -> list[str]:
    words = re.split(r", and |, ", cell.replace("`", "").replace(" (gRPC)", ""))
    return [name for word in words for name in WORDS[word]]


def _peers(rule: Mapping[str, Any], side: str) -> list[str]:
    peers = rule.get(side)
    if not peers:  # none at all, or an empty list: to Kubernetes both are everybody
        ports = {port["port"] for port in rule["ports"]}
        return ["dns"] if ports == {53} else ["api"] if 6443 in ports else ["anybody"]
    found = []
    for peer in peers:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        namespace = peer.get("namespaceSelector", {}).get("matchLabels", {})
        if "app.kubernetes.io/component" in labels:
            assert labels["app.kubernetes.io/instance"] == "post"
            found.append(labels["app.kubernetes.io/component"])
        elif "gatepost-operator" in labels:
            found.append("operators")
        else:
            name = namespace["kubernetes.io/metadata.name"]
            found.append({"monitoring": "prometheus"}.get(name, name))
    return found


def allowed(chart: Chart) -> tuple[set[Edge], set[Edge]]:
    """The edges that policies let out, and those that they let in."""
    out: set[Edge] = set()
    into: set[Edge] = set()
    for policy in chart.of("NetworkPolicy"):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        component = spec["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        out |= {
            (component, peer) for rule in spec.get("egress") or [] for peer in _peers(rule, "to")
        }
        into |= {
            (peer, component) for rule in spec.get("ingress") or [] for peer in _peers(rule, "from")
        }
    return out, into


OUTSIDE = {"anybody", "operators", "prometheus", "dns", "api", "keda"}
BESIDES = {("keda", "nats")}
"""Not of Gatepost itself: KEDA's operator."""


def test_the_policies_allow_the_edges_of_the_architecture() -> None:
    out, into = allowed(render(EVERYTHING))
    edges = {edge for edge in out | into if "test" not in edge} - BESIDES
    assert edges == table()


def test_both_ends_of_an_edge_allow_it() -> None:
    out, into = allowed(render(EVERYTHING))
    assert {edge for edge in out if edge[1] not in OUTSIDE} == {
        edge for edge in into if edge[0] not in OUTSIDE
    }


def test_without_the_options_there_are_fewer_edges() -> None:
    out, into = allowed(render())
    assert not {edge for edge in out | into if "keda" in edge}
    assert ("policy", "anybody") not in out
    assert ("nats", "nats") not in out | into


def test_pods_that_no_policy_names_talk_to_nobody() -> None:
    (deny,) = [
        policy["spec"]
        for policy in render().of("NetworkPolicy")
        if policy["metadata"]["name"].endswith("default-deny")
    ]
    assert not deny.keys() & {"ingress", "egress"}
    labels = deny["podSelector"]["matchLabels"]
    for component, pod in render(EVERYTHING).pods():
        assert labels.items() <= pod["metadata"]["labels"].items(), component


def test_the_ports_are_those_of_the_pods() -> None:
    chart = render(EVERYTHING)
    listening = {
        component: {port["containerPort"] for port in container(pod).get("ports", [])}
        for component, pod in chart.pods()
    }
    for policy in chart.of("NetworkPolicy"):
        component = policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for rule in policy["spec"].get("ingress") or []:
            assert _ports(rule) <= listening[component], component
    served = {"ingress": listening["ingress"], "nats": {4222, 6222, 8222}}
    for component, ports in served.items():
        assert listening[component] == ports


def _ports(rule: Manifest) -> set[int]:
    return {port["port"] for port in rule["ports"]}


def _ports_of_the_world(chart: Chart) -> list[set[int]]:
    """What delivery may reach of everybody, rule by rule."""
    return [
        _ports(rule)
        for rule in chart.one("NetworkPolicy", "delivery")["spec"]["egress"]
        if _peers(rule, "to") == ["anybody"]
    ]


def test_delivery_reaches_the_next_hops_that_are_configured() -> None:
    # The world's, Dovecot's by LMTP, the smarthost's with credentials.
    assert _ports_of_the_world(render(EVERYTHING))[0] == {25, 24, 587}


NEXT_HOPS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "a mail store by LMTP": (
        {
            "domains": {"local": ["example.org"]},
            "mailbox": {"kind": "lmtp", "lmtp": "dovecot.mail.svc.cluster.local:10024"},
        },
        {10024},
    ),
    "an IPv6 mail store": (
        {
            "domains": {"local": ["example.org"]},
            "mailbox": {"kind": "lmtp", "lmtp": "[fd00::1]:24"},
        },
        {24},
    ),
    "alternatives": (
        {
            "delivery": {
                "smarthost": {
                    "host": "a.example",
                    "port": 2525,
                    "alternatives": [
                        {"host": "b.example"},
                        {"host": "c.example", "username": "me", "password_file": "/c"},
                        {"host": "d.example", "port": 2526},
                    ],
                }
            }
        },
        {2525, 587, 2526},
    ),
    "smarthosts of senders": (
        {
            "delivery": {
                "sender_smarthosts": {
                    "example.org": {"host": "a.example", "username": "me", "token_file": "/a"},
                    "example.net": {
                        "host": "b.example",
                        "port": 2525,
                        "alternatives": [{"host": "c.example", "port": 2526}],
                    },
                    "example.com": {},
                }
            }
        },
        {587, 2525, 2526},
    ),
}


def _next_hops(config: Config) -> Iterator[Hop]:
    """All that delivery goes to without asking the DNS for mail exchanges, by its own routes."""
    senders = ("", *config.delivery.sender_smarthosts)
    destinations = (*config.domains.local, "elsewhere.example")
    for route in (route_of(config, *pair) for pair in product(destinations, senders)):
        if isinstance(route, HopRoute):
            yield from route.hops


@pytest.mark.parametrize("case", NEXT_HOPS)
def test_delivery_reaches_every_next_hop_at_the_port_that_it_takes(
    case: str, tmp_path: Path
) -> None:
    config, ports = NEXT_HOPS[case]
    # Its hop is a pod of the release, which has an edge of its own.
    chart = render({"config": config, "test": {"enabled": False}})
    assert _ports_of_the_world(chart)[0] == {25} | ports
    file = tmp_path / "gatepost.yaml"
    file.write_text(chart.config_text("delivery"), encoding="utf-8")
    taken = {hop.next_hop.port for hop in _next_hops(load(file))}
    assert taken | {25} == {25} | ports


def test_a_mail_store_is_reached_only_if_it_has_the_mailboxes() -> None:
    for kind, ports in (("lmtp", {25, 10024}), ("maildir", {25})):
        mailbox = {"kind": kind, "lmtp": "dovecot.mail:10024"}
        assert _ports_of_the_world(render({"config": {"mailbox": mailbox}}))[0] == ports


def test_delivery_reaches_web_servers_for_mta_sts_and_reports_alone() -> None:
    assert _ports_of_the_world(render()) == [{25}, {443}]
    assert _ports_of_the_world(render({"config": {"delivery": {"mta_sts": False}}})) == [{25}]
    reports = {"mta_sts": False, "tls_reports": {"enabled": True}}
    assert _ports_of_the_world(render({"config": {"delivery": reports}})) == [{25}, {443}]


def test_the_operator_may_allow_more() -> None:
    more = {"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    chart = render({"networkPolicy": {"extra": {"policy": {"egress": [more]}}}})
    assert more in chart.one("NetworkPolicy", "policy")["spec"]["egress"]
    assert not render({"networkPolicy": {"enabled": False}}).of("NetworkPolicy")


@pytest.mark.parametrize("who", ["operators", "prometheus", "keda"])
def test_an_empty_list_lets_in_nobody(who: str) -> None:
    before, after = (
        allowed(render(EVERYTHING | {"networkPolicy": given}))[1] for given in ({}, {who: []})
    )
    assert before - after == {edge for edge in before if edge[0] == who} != set()
    assert after < before


CLUSTER_DNS = {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}


def _may_ask(service: str, values: dict[str, Any]) -> list[tuple[bool, set[tuple[int, str]]]]:
    """The rules of a service for DNS: whether of any server, and at which ports."""
    narrow = {"networkPolicy": {"dns": [CLUSTER_DNS]}}
    rules = render(narrow | values).one("NetworkPolicy", service)["spec"]["egress"]
    return [
        ("to" not in rule, {(port["port"], port["protocol"]) for port in rule["ports"]})
        for rule in rules
        if any(port["protocol"] == "UDP" for port in rule["ports"])
    ]


def _both(*ports: int) -> set[tuple[int, str]]:
    return {(port, protocol) for port in ports for protocol in ("TCP", "UDP")}


def test_keys_asks_the_servers_of_zones_wherever_resolvers_are() -> None:
    assert _may_ask("keys", {}) == [(True, _both(53)), (False, _both(53))]
    assert _may_ask("policy", {}) == [(False, _both(53))]


def test_dns_servers_of_the_configuration_are_reached_at_their_ports() -> None:
    servers = ["10.0.0.5:5353", "10.0.0.6", "fd00::1234", "[fd00::1]:5454"]
    resolvers = {"config": {"dns": {"servers": servers}}}
    for service in ("policy", "delivery"):
        assert _may_ask(service, resolvers) == [(False, _both(53, 5353, 5454))]
    assert _may_ask("ingress", resolvers) == [(False, _both(53))]
    instead = {"config": {"keys": {"publication_servers": ["10.0.0.5:5353", "fd00::5"]}}}
    assert _may_ask("keys", instead) == [(True, _both(5353, 53)), (False, _both(53))]
    alone = {"config": {"keys": {"publication_servers": ["10.0.0.5:5353"]}}}
    assert _may_ask("keys", alone) == [(True, _both(5353)), (False, _both(53))]


def test_nats_is_reached_at_the_ports_of_its_urls() -> None:
    urls = ["nats://a.test:4333", "nats://[fd00::1]:4444", "nats://b.test", "nats://u:1@c.test"]
    server = {"cidr": "192.0.2.1/32"}
    chart = render(
        {
            "nats": {"enabled": False, "auth": {"existingSecret": "mine"}},
            "config": {"nats": {"urls": urls}},
            "networkPolicy": {"nats": [{"ipBlock": server}]},
        }
    )
    for client in ("ingress", "policy", "delivery", "topology"):
        [rule] = [
            rule
            for rule in chart.one("NetworkPolicy", client)["spec"]["egress"]
            if {"ipBlock": server} in rule.get("to", [])
        ]
        assert _ports(rule) == {4222, 4333, 4444}
