"""TLS between the services and to NATS: mail goes through, nobody speaks in clear, and renewed
certificates are taken up while it does."""

import os
import signal
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from services.common.tls import RELOAD_SECONDS
from tests.support.certificates import CertificateFolder
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.slow

_USER, _PASSWORD = "you@example.test", "correct horse battery"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFolder:
    made = CertificateFolder(tmp_path_factory.mktemp("tls"))
    made.issue("127.0.0.1")
    return made


@pytest.fixture(scope="module")
def nats(
    tmp_path_factory: pytest.TempPathFactory, files: CertificateFolder
) -> Iterator[NatsServer]:
    tls = f'\ntls {{ cert_file: "{files.certificate}", key_file: "{files.key}" }}\n'
    started = NatsServer(tmp_path_factory.mktemp("nats"), extra=tls)
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    dns: DnsServer,
    files: CertificateFolder,
    nats: NatsServer,
) -> Iterator[Installation]:
    started = Installation(
        tmp_path_factory.mktemp("gatepost"),
        {
            "dns": {"servers": [dns.address]},
            "nats": {
                "embedded": False,
                "urls": [f"tls://127.0.0.1:{nats.port}"],
                "tls": {"ca_file": str(files.ca)},
            },
            "services": {
                "tls": {
                    "certificate_file": str(files.certificate),
                    "key_file": str(files.key),
                    "ca_file": str(files.ca),
                }
            },
            "delivery": {"dkim": {"enabled": True}},
        },
    )
    started.start()
    yield started
    started.close()


def _send(installation: Installation, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], "mail.example.org", 30) as client:
        text = f"From: friend@example.org\r\nSubject: {subject}\r\n\r\nHello\r\n"
        client.sendmail("friend@example.org", [_USER], text)


def _certificate_at(port: int) -> bytes:
    """What a TLS server shows, whoever certified it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def _leaf(files: CertificateFolder) -> bytes:
    leaf, end, _ = files.certificate.read_text("ascii").partition("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(leaf + end)


def test_mail_goes_through_and_commands_find_the_authority(installation: Installation) -> None:
    for arguments in (
        ("accounts", "add", _USER, "--password-file", "-"),
        ("keys", "list"),
        ("queue", "list"),
    ):
        done = installation.gatepost(*arguments, stdin=_PASSWORD)
        assert done.returncode == 0, done.stderr
    _send(installation, "encrypted")
    assert b"Subject: encrypted" in installation.wait_mail(_USER)[0]


@pytest.mark.parametrize("service", ["policy", "keys", "queue"])
def test_nobody_speaks_in_clear(installation: Installation, service: str) -> None:
    target = f"127.0.0.1:{installation.ports[service]}"
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_another_authority_is_not_trusted(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CertificateFolder(tmp_path)
    other.issue("127.0.0.1")
    monkeypatch.setenv("GATEPOST_CA_FILE", str(other.ca))
    assert installation.gatepost("queue", "list").returncode != 0


def test_renewed_certificates_are_taken_up_while_mail_flows(
    installation: Installation, files: CertificateFolder, nats: NatsServer
) -> None:
    before = len(installation.mail(_USER))
    files.issue("127.0.0.1")
    os.kill(nats.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10 * RELOAD_SECONDS
    ports = [installation.ports[name] for name in ("policy", "keys", "queue")]
    sent = 0
    while any(_certificate_at(port) != _leaf(files) for port in ports):
        assert time.monotonic() < deadline, "the old certificate is still shown"
        _send(installation, f"renewed {sent}")
        sent += 1
        time.sleep(0.5)
    # Connections that were made with the old one end, and new ones are made.
    installation.kill("ingress")
    installation.wait_ready("ingress")
    _send(installation, "afterwards")
    installation.wait_mail(_USER, before + sent + 1)
