"""Mail to the servers that others run: Postfix as a smarthost, Dovecot as the mail store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from tests.support.certificates import CertificateFolder
from tests.support.delivery import Delivery, events, mail, submit, until, wait_queued
from tests.support.dovecot import Dovecot
from tests.support.postfix import Postfix, relaying
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import SmtpPeer

SMARTHOST = "smart.example.net"
USER, PASSWORD = "account@example.test", "p4ss word"
FAR = "you@far.test"
BODY = b"From: me@example.org\r\nSubject: real\r\n\r\n.dots\r\n..\r\n.\r\nFrom here\r\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="POSTFIX AND DOVECOT WERE NOT TESTED: no root"),
]


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    users = {USER: PASSWORD, "you@example.test": "x", "full@example.test": "x"}
    server = Dovecot(users, quota_kilobytes=20)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def beyond() -> AsyncIterator[SmtpPeer]:
    """Where the smarthost sends everything."""
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def certificates(tmp_path: Path) -> CertificateFolder:
    folder = CertificateFolder(tmp_path / "tls")
    folder.issue(SMARTHOST)
    return folder


def body(content: bytes) -> bytes:
    """What Postfix adds is in the header."""
    return content.partition(b"\r\n\r\n")[2]


def smarthost(postfix: Postfix, **settings: Any) -> dict[str, Any]:
    return {"delivery": {"smarthost": {"host": SMARTHOST, "port": postfix.port, **settings}}}


def sender(store: JetStream, config: Mapping[str, Any]) -> Delivery:
    return Delivery(store, config, resolver=FakeResolver({(SMARTHOST, "A"): ["127.0.0.1"]}))


def with_auth(dovecot: Dovecot, certificates: CertificateFolder) -> dict[str, str]:
    """Postfix as providers run the submission port: nothing without TLS, nothing without AUTH."""
    return {
        "mynetworks": "192.0.2.0/24",
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_cert_file": str(certificates.certificate),
        "smtpd_tls_key_file": str(certificates.key),
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(dovecot.auth_socket),
        "smtpd_tls_auth_only": "yes",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    }


def credentials(folder: Path, certificates: CertificateFolder, password: str) -> dict[str, str]:
    file = folder / "password"
    file.write_text(f"{password}\n", encoding="utf-8")
    return {"username": USER, "password_file": str(file), "ca_file": str(certificates.ca)}


async def test_postfix_without_credentials_takes_mail_for_everywhere(
    store: JetStream, beyond: SmtpPeer
) -> None:
    async with relaying(beyond.port, tls="none") as postfix:
        async with sender(store, smarthost(postfix)):
            await submit(store, *(mail(FAR, content=BODY) for _ in range(3)))
            await wait_queued(store, seconds=30)
        for taken in await beyond.wait_mails(3, seconds=30):
            assert taken.rcpt_to == [FAR]
            assert body(taken.content) == body(BODY)


async def test_postfix_takes_mail_of_those_who_log_in_over_tls(
    store: JetStream,
    beyond: SmtpPeer,
    dovecot: Dovecot,
    certificates: CertificateFolder,
    tmp_path: Path,
) -> None:
    record = mail(FAR, content=BODY)
    async with relaying(
        beyond.port, tls="none", settings=with_auth(dovecot, certificates)
    ) as postfix:
        config = smarthost(postfix, **credentials(tmp_path, certificates, PASSWORD))
        async with sender(store, config):
            await submit(store, record)
            await wait_queued(store, seconds=30)
        (taken,) = await beyond.wait_mails(1, seconds=30)
        assert body(taken.content) == body(BODY)
        await until(lambda: f"sasl_username={USER}" in postfix.log())
    (happened,) = await events(store, record.message_id)
    assert happened.attempt.tls_version.startswith("TLSv1.")


async def test_postfix_with_a_wrong_password_makes_mail_wait(
    store: JetStream,
    beyond: SmtpPeer,
    dovecot: Dovecot,
    certificates: CertificateFolder,
    tmp_path: Path,
) -> None:
    async with relaying(
        beyond.port, tls="none", settings=with_auth(dovecot, certificates)
    ) as postfix:
        config = smarthost(postfix, **credentials(tmp_path, certificates, "wrong"))
        async with sender(store, config):
            await submit(store, mail(FAR))
            (waiting,) = await wait_queued(store, State.DEFERRED, seconds=30)
    assert "authenticat" in waiting.wait_reason.lower()
    assert "wrong" not in waiting.wait_reason
    assert not beyond.mails


async def test_dovecot_answers_for_each_recipient(
    store: JetStream, dovecot: Dovecot, tmp_path: Path
) -> None:
    big = BODY + b"x" * 15_000 + b"\r\n"
    config = {
        "domains": {"local": ["example.test"]},
        "mailbox": {"kind": "lmtp", "lmtp": f"127.0.0.1:{dovecot.port}"},
    }
    async with Delivery(store, config):
        await submit(store, mail("full@example.test", content=big))
        await wait_queued(store, seconds=30)
        recipients = ("you@example.test", "full@example.test", "nobody@example.test")
        record = mail(*recipients, content=big, sender="account@example.test")
        await submit(store, record)
        await wait_queued(store, seconds=30)
        await until(lambda: dovecot.mails("account@example.test"), seconds=30)
    (arrived,) = dovecot.mails("you@example.test")
    assert arrived.replace(b"\r\n", b"\n").endswith(big.replace(b"\r\n", b"\n"))
    assert len(dovecot.mails("full@example.test")) == 1
    (report,) = dovecot.mails("account@example.test")
    for address, status in (("full", b"5.2.2"), ("nobody", b"5.1.1")):
        block = report[report.index(f"rfc822; {address}@example.test".encode()) :]
        assert block.partition(b"Status: ")[2].startswith(status)
    assert b"rfc822; you@example.test" not in report
