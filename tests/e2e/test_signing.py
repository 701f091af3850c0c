"""Keys rotate while a whole installation sends signed mail, and every mail verifies on arrival."""

from __future__ import annotations

import json
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import dkim
import pytest

from tests.support import opendkim
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.sink import Sink

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

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
    try:
        started.add_account(_USER, _PASSWORD)
        yield started
    finally:
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


def _key_records(dns: DnsServer) -> dict[str, str]:
    """The records of keys that the DNS has now."""
    records = dict(dns.records)
    return {name: values[0] for (name, _), values in records.items() if "._domainkey." in name}


def _selectors(mail: bytes, records: Mapping[str, str]) -> list[str]:
    """Whose signatures there are, all of them good in dkimpy's eyes."""

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        value = records.get(name.decode().rstrip("."))
        return value.encode() if value else None

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
    assert _selectors(_arrived(sink, unsigned), {}) == []

    rsa = _publish(installation, dns, "rsa")
    ed25519 = _publish(installation, dns, "ed25519")
    both = uuid4().hex
    _send(installation, both)
    mail = _arrived(sink, both)
    records = _key_records(dns)
    assert _selectors(mail, records) == [rsa, ed25519]
    assert opendkim.verified(mail, records, folder) == [
        f"pass rsa-sha256 {rsa}",
        f"pass ed25519-sha256 {ed25519}",
    ]


class _Traffic:
    """Mail that is sent, one after the other, and kept with the DNS as it is when it arrives."""

    def __init__(self, installation: Installation, dns: DnsServer, sink: Sink) -> None:
        self._installation, self._dns, self._sink = installation, dns, sink
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.arrived: list[tuple[bytes, dict[str, str]]] = []
        self.failed: list[str] = []

    def __enter__(self) -> _Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                marker = uuid4().hex
                _send(self._installation, marker)
                mail = _arrived(self._sink, marker, seconds=60)
                self.arrived.append((mail, _key_records(self._dns)))
        except Exception as error:  # noqa: BLE001 - the test reports it
            self.failed.append(repr(error))

    def wait_more(self, count: int, *, seconds: float = 120.0) -> None:
        """Return when so many further mails have arrived."""
        enough = len(self.arrived) + count
        deadline = time.monotonic() + seconds
        while len(self.arrived) < enough:
            assert not self.failed, self.failed
            assert time.monotonic() < deadline, "mail does not arrive"
            time.sleep(0.05)


def _waiting(installation: Installation, *, seconds: float = 60.0) -> Any:
    """The one mail in the queue, once it waits for something."""
    deadline = time.monotonic() + seconds
    while True:
        listed = installation.gatepost("queue", "list", "--json")
        waiting = [mail for mail in json.loads(listed.stdout) if mail["wait_reason"]]
        if waiting:
            return waiting[0]
        assert time.monotonic() < deadline, listed.stdout
        time.sleep(0.2)


def test_rotated_under_load_every_mail_verifies_in_the_dns_of_its_moment(
    installation: Installation, dns: DnsServer, sink: Sink, folder: Path
) -> None:
    for key in _keys(installation, "list", "--domain", "example.test"):
        if key["state"] == "KEY_STATE_ACTIVE":
            options = ["example.test", key["selector"], "--leave-unsigned"]
            _keys(installation, "retire", *options)
    rotated = [_publish(installation, dns, "rsa")]
    with _Traffic(installation, dns, sink) as traffic:
        for key_type in ("ed25519", "rsa"):
            traffic.wait_more(3)
            rotated.append(_publish(installation, dns, key_type))
            traffic.wait_more(1)
            _keys(installation, "retire", "example.test", rotated[-2])
        traffic.wait_more(3)
    assert not traffic.failed
    seen = []
    for mail, records in traffic.arrived:
        results = opendkim.verified(mail, records, folder)
        selectors = [result.split()[-1] for result in results]
        assert results, "a mail went out unsigned"
        assert all(result.startswith("pass ") for result in results), results
        assert selectors == _selectors(mail, records)
        seen += selectors
    # All took their turn.
    assert list(dict.fromkeys(seen)) == rotated


def test_mail_of_a_lost_key_waits_until_it_is_restored(
    installation: Installation, dns: DnsServer, sink: Sink
) -> None:
    if not any(key["state"] == "KEY_STATE_ACTIVE" for key in _keys(installation, "list")):
        _publish(installation, dns, "ed25519")
    files = {file: file.read_bytes() for file in (installation.data / "keys").glob("*.json")}
    active = [file for file, text in files.items() if b'"active"' in text]
    for file in active:
        file.unlink()
    try:
        installation.kill("keys")
        installation.wait_ready("keys")
        assert "gatepost_keys_waiting_domains 1.0" in installation.metrics("keys")
        marker = uuid4().hex
        _send(installation, marker)
        # Delivery may not have noticed yet that keys is back.
        deadline = time.monotonic() + 120
        while "should sign and cannot" not in (waiting := _waiting(installation))["wait_reason"]:
            assert time.monotonic() < deadline, waiting
        assert waiting["attempts"] == 0
        assert not any(marker.encode() in mail for mail in sink.mails())
    finally:
        for file in active:
            file.write_bytes(files[file])
    _wait_restored(installation)
    # It would go by itself, in a minute.
    retried = installation.gatepost("queue", "retry", waiting["message_id"])
    assert retried.returncode == 0, retried.stderr
    assert _selectors(_arrived(sink, marker, seconds=120), _key_records(dns))


def _wait_restored(installation: Installation, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while "gatepost_keys_waiting_domains 0.0" not in installation.metrics("keys"):
        assert time.monotonic() < deadline, "the keys were not read again"
        time.sleep(0.1)


def test_mail_waits_while_keys_is_away(
    installation: Installation, dns: DnsServer, sink: Sink
) -> None:
    if not _keys(installation, "list"):
        _publish(installation, dns, "ed25519")
    marker = uuid4().hex
    installation.kill("keys")
    _send(installation, marker)
    assert _selectors(_arrived(sink, marker, seconds=180), _key_records(dns))
