"""`helm test` as the chart makes it: its mail goes through, and it opens the door to nobody."""

import os
import smtplib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import ROOT, container, render
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.ports import free_ports

DOMAIN = "helm-test.invalid"
STRICT: dict[str, Any] = {
    "policy": {
        "greylist": {"enabled": True},
        "actions": dict.fromkeys(
            ("helo_mismatch", "invalid_sender", "spf_mismatch", "dkim_missing", "from_mismatch"),
            "refuse",
        ),
    },
    "delivery": {"require_tls": True},
}


def rendered(service: str) -> dict[str, Any]:
    """What the chart says by itself about mail."""
    config = yaml.safe_load(render({"config": STRICT}).config_text(service))
    return {key: config[key] for key in ("domains", "policy", "delivery") if key in config}


@pytest.fixture(scope="module")
def sink_port() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, dns: DnsServer, sink_port: int
) -> Iterator[Installation]:
    config = rendered("delivery")
    assert rendered("ingress") == rendered("policy") == config
    # A Service gives the sink its name there.
    config["delivery"]["sender_smarthosts"][DOMAIN] = {"host": "127.0.0.1", "port": sink_port}
    config["dns"] = {"servers": [dns.address]}
    started = Installation(tmp_path_factory.mktemp("gatepost"), config)
    started.start()
    try:
        yield started
    finally:
        started.close()


def arguments(installation: Installation, tls: str, sink_port: int, folder: Path) -> Sequence[str]:
    """The pod's, with what is reached by names there where it is here."""
    listener = {"starttls": "submission", "implicit": "submissions"}[tls]
    pod = container(render().pod("test"))
    policy, ingress, given_tls, sink, domain, place, seconds = pod["args"]
    assert (given_tls, domain, place) == ("starttls", DOMAIN, "/run/test")
    assert [each.rpartition(":")[2] for each in (policy, ingress, sink)] == ["7100", "587", "2500"]
    return (
        f"127.0.0.1:{installation.ports['policy']}",
        f"127.0.0.1:{installation.ports[listener]}",
        tls,
        f"127.0.0.1:{sink_port}",
        domain,
        str(folder),
        seconds,
    )


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_the_mail_of_the_test_goes_through(
    installation: Installation, sink_port: int, tmp_path: Path, tls: str
) -> None:
    script = ROOT / "helm/gatepost/files/send-through.py"
    token = installation.data / "tokens" / "operator.token"
    done = subprocess.run(
        [sys.executable, str(script), *arguments(installation, tls, sink_port, tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "GATEPOST_TOKEN_FILE": str(token), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the mail came back" in done.stdout
    assert "helm-test" not in installation.gatepost("accounts", "list").stdout


@pytest.mark.parametrize(
    ("sender", "status"),
    [
        pytest.param("someone@example.org", b"5.7.1", id="somebody"),
        pytest.param("", b"5.7.1", id="nobody"),
        # A sender that is refused before anybody asks for whom the mail is.
        pytest.param(f"helm-test@{DOMAIN}", b"5.1.8", id="the test's own name"),
    ],
)
def test_strangers_cannot_send_there(
    installation: Installation, sender: str, status: bytes
) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], timeout=30) as client:
        client.ehlo("mail.example.org")
        answers = []
        for recipient in (f"x@{DOMAIN}", "x@elsewhere.test"):
            client.mail(sender)
            answers.append(client.rcpt(recipient))
            client.rset()
    there, anywhere = answers
    assert there == anywhere
    assert (there[0], there[1][:5]) == (550, status)
