"""A server for submission alone: no local domain, one declared account, a smarthost."""

import smtplib
from collections.abc import Iterator

import pytest
import yaml
from argon2 import PasswordHasher

from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.sink import Sink
from tests.support.smtp_client import no_questions_asked

ACCOUNT = "shop@example.org"
LIMITED = "limited@example.org"
LIMIT = 3
PASSWORD = "correct horse battery"
MAIL = b"From: shop@example.org\r\nTo: ann@elsewhere.test\r\nSubject: an order\r\n\r\nThanks.\r\n"


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, sink: Sink, dns: DnsServer
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("gatepost")
    hashed = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1).hash(PASSWORD)
    accounts = folder / "accounts.yaml"
    addresses = (ACCOUNT, LIMITED)
    content = {"accounts": [{"address": each, "password_hash": hashed} for each in addresses]}
    accounts.write_text(yaml.safe_dump(content), encoding="utf-8")
    config = {
        "dns": {"servers": [dns.address]},
        "domains": {"local": []},
        "recipients": {"accounts_file": str(accounts)},
        "submission": {"recipients_per_hour": LIMIT},
        "delivery": {"smarthost": {"host": "127.0.0.1", "port": sink.port}},
    }
    started = Installation(folder, config)
    started.start()
    yield started
    started.close()


def test_the_account_submits(installation: Installation, sink: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["submission"], timeout=30) as client:
        client.starttls(context=no_questions_asked())
        client.login(ACCOUNT, PASSWORD)
        client.sendmail(ACCOUNT, ["ann@elsewhere.test"], MAIL)
    assert b"\nSubject: an order\n" in sink.wait(b"Thanks.")
    listed = installation.gatepost("accounts", "list")
    rows = [line.split()[:4] for line in listed.stdout.splitlines()[1:]]
    assert [ACCOUNT, "yes", "no", "declared"] in rows


def test_an_account_sends_to_so_many_in_an_hour(installation: Installation) -> None:
    """A stolen password must not empty the house; a new connection changes nothing."""
    for replies in ([250] * LIMIT + [450], [450]):
        with smtplib.SMTP("127.0.0.1", installation.ports["submission"], timeout=30) as client:
            client.starttls(context=no_questions_asked())
            client.login(LIMITED, PASSWORD)
            client.mail(LIMITED)
            answers = [
                client.rcpt(f"user{number}@elsewhere.test") for number in range(len(replies))
            ]
        assert [code for code, _ in answers] == replies
        assert answers[-1][1] == b"4.7.1 Too many recipients in this hour, please try again later"


def test_nobody_else_gets_in_and_no_mail_is_taken_for_it(installation: Installation) -> None:
    with smtplib.SMTP("127.0.0.1", installation.ports["submission"], timeout=30) as client:
        client.starttls(context=no_questions_asked())
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(ACCOUNT, "wrong password")
        assert client.mail(ACCOUNT)[0] == 530
    for recipient in (ACCOUNT, "ann@elsewhere.test"):
        with smtplib.SMTP("127.0.0.1", installation.ports["mx"], timeout=30) as client:
            client.ehlo("mail.example.org")
            client.mail("ann@example.org")
            assert client.rcpt(recipient) == (550, b"5.7.1 Relaying denied")


def test_one_more_is_made_by_hand(installation: Installation) -> None:
    add = ("accounts", "add", "till@example.org", "--password-file", "-")
    made = installation.gatepost(*add, stdin=PASSWORD)
    assert made.stdout.splitlines() == [
        "till@example.org created",
        "it can submit mail and gets none: example.org is not in domains.local",
    ]
    refused = installation.gatepost("accounts", "add", "x@example.org", "--no-password")
    assert refused.returncode != 0
    assert "without a password would be for nothing" in refused.stderr
