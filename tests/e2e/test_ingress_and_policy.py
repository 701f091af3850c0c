"""What ingress and policy only manage together: rules of recipients, addresses that are lost."""

import json
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.ports import free_port
from tests.support.programs import program
from tests.support.smtp_client import no_questions_asked

ZONE = {
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
}
WINDOW = 100
PASSWORD = "correct horse battery"
ACCOUNT = "you@example.test"
LAX, STRICT = "postmaster@example.test", "postmaster@strict.test"


def mail(author: str) -> bytes:
    return f"From: {author}\r\nTo: {LAX}, {STRICT}\r\nSubject: hello\r\n\r\ntext\r\n".encode()


@pytest.fixture(scope="module")
def proxied_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, proxied_port: int) -> Iterator[Installation]:
    """An installation with a strict domain, and a port behind a load balancer."""
    with DnsServer(ZONE) as dns:
        started = Installation(tmp_path_factory.mktemp("gatepost"))
        listeners = [
            {"name": "mx", "address": "127.0.0.1", "port": started.ports["mx"]},
            {
                "name": "submissions",
                "address": "127.0.0.1",
                "port": started.ports["submissions"],
                "role": "submission",
                "tls": "implicit",
            },
            {
                "name": "proxied",
                "address": "127.0.0.1",
                "port": proxied_port,
                "proxy_protocol": {"trusted": ["127.0.0.0/8"]},
            },
        ]
        started.configure(
            {
                "smtp": {"listeners": listeners},
                "dns": {"servers": [dns.address]},
                "domains": {"local": ["example.test", "strict.test"]},
                "policy": {"domains": {"strict.test": {"actions": {"dkim_missing": "refuse"}}}},
            }
        )
        started.start()
        try:
            started.add_account(ACCOUNT, PASSWORD)
            yield started
        finally:
            started.close()


def test_recipients_under_different_rules_come_one_after_the_other(edge: Installation) -> None:
    sender = "ann@example.org"
    with smtplib.SMTP("127.0.0.1", edge.ports["mx"], "mx.example.org", timeout=30) as client:
        client.ehlo()
        client.mail(sender)
        assert client.rcpt(LAX)[0] == 250
        assert client.rcpt(STRICT)[0] == 452
        assert client.data(mail(sender))[0] == 250
        client.mail(sender)
        assert client.rcpt(STRICT)[0] == 250
        assert client.rcpt(LAX) == (452, b"4.5.3 Send this recipient in a transaction of its own")
        code, text = client.data(mail(sender))
        assert (code, text[:6]) == (550, b"5.7.20")
    edge.wait_mail(LAX)
    assert edge.mail(STRICT) == []


def test_who_logs_in_is_not_bothered_with_rules(edge: Installation) -> None:
    with smtplib.SMTP_SSL(
        "127.0.0.1", edge.ports["submissions"], timeout=30, context=no_questions_asked()
    ) as client:
        client.login(ACCOUNT, PASSWORD)
        assert client.sendmail(ACCOUNT, [LAX, STRICT], mail(ACCOUNT)) == {}
    edge.wait_mail(STRICT)


def grpcurl(edge: Installation, method: str, request: dict[str, str]) -> dict[str, Any]:
    token = token_file(edge.data / "tokens", Role.VIEWER).read_text(encoding="ascii").strip()
    found = subprocess.run(
        [
            program("grpcurl"),
            *("-plaintext", "-emit-defaults", "-d", json.dumps(request)),
            *("-H", f"authorization: Bearer {token}"),
            f"127.0.0.1:{edge.ports['policy']}",
            f"gatepost.policy.v1.PolicyService/{method}",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def connected_from(port: int, address: str) -> smtplib.SMTP:
    """A session of a client that the load balancer calls by this address."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    raw.sendall(f"PROXY TCP4 {address} 198.51.100.1 4711 25\r\n".encode())
    client = smtplib.SMTP(local_hostname="mx.example.org")
    client.sock = raw
    assert client.getreply()[0] == 220
    client.ehlo()
    return client


def sent_from(port: int, address: str) -> str:
    """Send a mail; its id."""
    sender = "ann@example.org"
    with connected_from(port, address) as client:
        client.mail(sender)
        client.rcpt(LAX)
        code, text = client.data(mail(sender))
        assert code == 250
    return text.decode().rpartition(" ")[2]


def test_lost_addresses_are_told_by_grpc_metric_and_log(
    edge: Installation, proxied_port: int
) -> None:
    for _ in range(WINDOW):
        with connected_from(proxied_port, "10.0.0.7") as client:
            pass
    message_id = sent_from(proxied_port, "10.0.0.7")
    status = grpcurl(edge, "GetStatus", {})
    assert status["client_addresses_lost"] is True
    assert "externalTrafficPolicy: Local" in status["advice"]
    listeners = {each["listener"]: each for each in status["listeners"]}
    assert listeners["proxied"]["client_addresses_lost"] is True
    assert listeners["proxied"]["last_client_address"] == "10.0.0.7"
    assert "gatepost_ingress_client_address_suspect_ratio 1.0" in edge.metrics("ingress")
    edge.wait_log("ingress", "client addresses seem to be lost")
    assert explained(edge, message_id)["session"]["client_addresses_lost"] is True
    # Looking like one of the cluster's own is no licence to relay.
    with connected_from(proxied_port, "10.0.0.7") as client:
        client.mail("ann@example.org")
        assert client.rcpt("friend@elsewhere.example")[0] == 550
    # One stranger is enough to show that addresses arrive.
    sent_from(proxied_port, "8.8.8.8")
    status = grpcurl(edge, "GetStatus", {})
    assert (status["client_addresses_lost"], status["advice"]) == (False, "")


def explained(edge: Installation, message_id: str) -> dict[str, Any]:
    """The recorded verdict, which is there a moment after the reply."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return grpcurl(edge, "ExplainMessage", {"messageId": message_id})
        except subprocess.CalledProcessError as error:
            if "NotFound" not in error.stderr or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
