"""A real Prometheus reads a running system under load: every query of every dashboard and of every
alert finds something, and no alert is raised while all is well."""

import json
import re
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.ledger import Ledger
from tests.support.load import Load, Parcel
from tests.support.ports import free_port
from tests.support.prometheus import SCRAPE_SECONDS, Prometheus
from tests.support.sink import Sink

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ALERTS = CHART / "files" / "alerts.yaml"
GROUPS = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))

RATE = "20s"
"""What $__rate_interval is here, with a scrape every second."""

EMPTY = {
    "sum by (limit) (rate(gatepost_ingress_excess_contents_total": (
        "counts refusals for want of memory: tests/integration/test_ingress_memory.py makes some"
    ),
}
"""Queries that may find nothing in this run, by how they begin, and where else they do."""

EMPTY_SELECTORS = {
    "gatepost_keys_successor_published": (
        "told only while a key has a successor: tests/unit/keys/test_upkeep.py has some"
    ),
}
"""Metrics of alerts that may be absent in this run, and where else they are not."""

_USER, _PASSWORD = "you@example.test", "correct horse battery"


def queries() -> Iterator[tuple[str, str]]:
    """The dashboard and panel of each query, and the query with the variables filled in."""
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                name = f"{dashboard['uid']}: {panel['title']}"
                yield name, filled(target["expr"])


def filled(expression: str) -> str:
    text = expression.replace("$namespace", "mail").replace("$__rate_interval", RATE)
    assert "$" not in text, text
    return text


def selectors(expression: str) -> set[str]:
    """The metrics that an alert asks for, each with its labels."""
    return set(re.findall(r"gatepost_\w+(?:\{[^}]*\})?", expression))


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, dns: DnsServer, sink: Sink
) -> Iterator[Installation]:
    started = Installation(
        tmp_path_factory.mktemp("gatepost"),
        {
            "dns": {"servers": [dns.address]},
            "keys": {"publication_servers": [dns.address]},
            "domains": {
                "local": ["example.test"],
                "relay": {
                    "relay.test": f"smtp:127.0.0.1:{sink.port}",
                    "dead.test": f"smtp:127.0.0.1:{free_port()}",
                },
            },
            "policy": {
                "actions": {"spf_mismatch": "refuse", "sender_unreachable": "spam"},
                "callout": {"timeout": "2s", "allowed_networks": ["127.0.0.0/8"]},
            },
            "delivery": {
                "dkim": {"enabled": True},
                "retry": {"interval": "1s", "max_retries": 1},
            },
        },
    )
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def prometheus(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    started = Prometheus(tmp_path_factory.mktemp("prometheus"), installation, rules=[ALERTS])
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def began(installation: Installation, prometheus: Prometheus, dns: DnsServer) -> float:
    """When the load began; it is over, and everything that it provokes is in Prometheus soon."""
    began = time.time()
    dns.records["bad.example", "TXT"] = ["v=spf1 -all"]
    dns.records["bad.example", "A"] = ["127.0.0.1"]
    _make_key(installation, dns)
    installation.add_account(_USER, _PASSWORD)
    _load(installation)
    _submit(installation)
    _be_refused(installation)
    assert not left(lambda: alerts(prometheus)), "an alert while all is well"
    with installation.paused("nats"):
        _load(installation, until_refused=True)
    installation.kill("nats")
    _load(installation, until_refused=True)
    for service in ("ingress", "policy", "delivery"):
        installation.wait_ready(service)
    _load(installation)
    installation.wait_mail(_USER, 1)
    return began


def _make_key(installation: Installation, dns: DnsServer) -> None:
    made = installation.gatepost("keys", "create", "example.test", "--expiry", "300d", "--json")
    key: dict[str, Any] = json.loads(made.stdout)
    dns.records[key["dns_record"]["name"], "TXT"] = [key["dns_record"]["value"]]
    done = installation.gatepost("keys", "activate", "example.test", key["selector"])
    assert done.returncode == 0, done.stderr


def _load(installation: Installation, *, until_refused: bool = False) -> None:
    ledger = Ledger()
    Load(
        port=installation.ports["mx"],
        ledger=ledger,
        parcel=lambda _: Parcel("friend@example.org", (_USER,)),
        helo="mail.example.org",
        wanted=10_000 if until_refused else 40,
        sessions=2,
        seconds=3 if until_refused else 60,
    ).run()


def _submit(installation: Installation) -> None:
    """Signed mail, to a place that takes it and to one that does not; and a wrong password."""
    context = ssl.create_default_context(cafile=str(installation.data / "tls" / "tls.crt"))
    context.check_hostname = False
    port = installation.ports["submissions"]
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=context) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(_USER, "guessed")
        client.login(_USER, _PASSWORD)
        for number in range(6):
            recipients = ["friend@relay.test", "friend@dead.test"]
            text = f"From: {_USER}\r\nTo: friend@relay.test\r\nSubject: {number}\r\n\r\nHello\r\n"
            client.sendmail(_USER, recipients, text)


def _be_refused(installation: Installation) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], timeout=30) as client:
        client.ehlo("mail.example.org")
        client.mail("somebody@bad.example")
        code, _ = client.rcpt(_USER)
        assert code == 550
        client.docmd("AUTH", "PLAIN =")


def alerts(prometheus: Prometheus) -> set[str]:
    return {curve.labels["alertname"] for curve in prometheus.now("ALERTS")}


def left(look: Callable[[], set[str]]) -> set[str]:
    """What is found once it is nothing, or after a minute."""
    deadline = time.monotonic() + 60
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(SCRAPE_SECONDS)
    return found


def empty(prometheus: Prometheus, expressions: Mapping[str, str], began: float) -> set[str]:
    """What of these, by name, has found nothing so far."""
    return {name for name, each in expressions.items() if not prometheus.since(each, began)}


def test_every_panel_has_something_to_show(prometheus: Prometheus, began: float) -> None:
    wanted = {
        f"{name}: {expression}": expression
        for name, expression in queries()
        if not any(expression.startswith(beginning) for beginning in EMPTY)
    }
    assert not left(lambda: empty(prometheus, wanted, began))


def test_every_alert_asks_for_what_is_there(prometheus: Prometheus, began: float) -> None:
    wanted = {
        f"{rule['alert']}: {selector}": selector
        for rule in RULES
        for selector in selectors(rule["expr"]) - EMPTY_SELECTORS.keys()
    }
    assert not left(lambda: empty(prometheus, wanted, began))


def test_the_alerts_are_loaded_and_those_of_the_crash_are_over(prometheus: Prometheus) -> None:
    """NATS was killed: that was noticed, and nobody is woken for some seconds of it."""
    assert not left(lambda: alerts(prometheus))


def test_every_panel_says_what_it_shows() -> None:
    assert len(DASHBOARDS) == 5
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            assert panel["type"] == "row" or panel["description"], panel["title"]
