"""Keys rotate while a whole installation sends signed mail, and every mail verifies on arrival."""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dkim
import pytest

from tests.support import opendkim
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.sink import Sink

pytestmark = pytest.mark.slow

_PASSWORD = "correct horse battery"
_USER = "you@example.test"


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
                "relay": {"relay.test": f"smtp:127.0.0.1:{sink.port}"},
            },
            "delivery": {
                "dkim": {"enabled": True},
                "retry": {"interval": "1s", "max_retries": 100},
            },
        },
    )
    started.start()
    made = started.gatepost("accounts", "add", _USER, "--password-file", "-", stdin=_PASSWORD)
    assert made.returncode == 0, made.stderr
    yield started
    started.close()


def _keys(installation: Installation, *arguments: str) -> Any:
    done = installation.gatepost("keys", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _publish(installation: Installation, dns: DnsServer, key_type: str) -> str:
    """Make a key of ours active, the way a person does; its selector."""
    key = _keys(installation, "create", "example.test", "--type", key_type)
    dns.records[key["dns_record"]["name"], "TXT"] = [key["dns_record"]["value"]]
    _keys(installation, "activate", "example.test", key["selector"])
    selector: str = key["selector"]
    return selector


def _client(installation: Installation) -> smtplib.SMTP_SSL:
    context = ssl.create_default_context(cafile=str(installation.data / "tls" / "tls.crt"))
    context.check_hostname = False  # it is for mail.example.test, we came to 127.0.0.1
    port = installation.ports["submissions"]
    client = smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=context)
    client.login(_USER, _PASSWORD)
    return client


def _send(installation: Installation, *markers: str) -> None:
    with _client(installation) as client:
        for marker in markers:
            mail = (
                f"From: You <{_USER}>\r\nTo: friend@relay.test\r\nSubject: {marker}\r\n"
                f"Date: Mon, 23 Nov 2026 03:00:00 +0000\r\nMessage-ID: <{marker}@example.test>\r\n"
                "\r\nHello,  \r\n.\r\n\r\nGrüße\r\n\r\n\r\n"
            )
            client.sendmail(_USER, ["friend@relay.test"], mail.encode(), ["BODY=8BITMIME"])


def _arrived(sink: Sink, marker: str, *, seconds: float = 30.0) -> bytes:
    """The mail as it was on the wire."""
    return sink.wait(marker.encode(), seconds=seconds).replace(b"\n", b"\r\n") + b"\r\n"


def _selectors(mail: bytes, dns: DnsServer) -> list[str]:
    """Whose signatures there are, all of them good in dkimpy's eyes."""

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        values = dns.records.get((name.decode().rstrip("."), "TXT"))
        return values[0].encode() if values else None

    count = mail.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    selectors = []
    for index in range(count):
        verifier = dkim.DKIM(mail)
        assert verifier.verify(idx=index, dnsfunc=look_up), f"signature {index} of {mail!r}"
        selectors.append(verifier.selector.decode())
    return selectors


def test_made_published_activated_used_and_rotated(
    installation: Installation, dns: DnsServer, sink: Sink, folder: Path
) -> None:
    unsigned = uuid4().hex
    _send(installation, unsigned)
    assert _selectors(_arrived(sink, unsigned), dns) == []

    rsa = _publish(installation, dns, "rsa")
    ed25519 = _publish(installation, dns, "ed25519")
    both = uuid4().hex
    _send(installation, both)
    mail = _arrived(sink, both)
    assert _selectors(mail, dns) == [rsa, ed25519]
    records = {
        name: dns.records[name, "TXT"][0] for name, _ in dns.records if "._domainkey." in name
    }
    assert opendkim.verified(mail, records, folder) == [
        f"pass rsa-sha256 {rsa}",
        f"pass ed25519-sha256 {ed25519}",
    ]

    markers = [uuid4().hex for _ in range(40)]
    _send(installation, *markers[:20])
    successor = _publish(installation, dns, "rsa")
    _send(installation, *markers[20:30])
    _keys(installation, "retire", "example.test", rsa)
    _send(installation, *markers[30:])
    signed = [_selectors(_arrived(sink, marker), dns) for marker in markers]
    assert all(signed)
    assert signed[0] == [rsa, ed25519]
    assert signed[-1] == [successor, ed25519]


def test_mail_waits_while_keys_is_away(
    installation: Installation, dns: DnsServer, sink: Sink
) -> None:
    if not _keys(installation, "list"):
        _publish(installation, dns, "ed25519")
    marker = uuid4().hex
    installation.kill("keys")
    _send(installation, marker)
    assert _selectors(_arrived(sink, marker, seconds=180), dns)
