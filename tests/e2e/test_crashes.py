"""kill -9 of every process under load: what was answered with 250 arrives, unchanged."""

import threading
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import PASSWORD
from tests.support.dns_server import DnsServer
from tests.support.installation import SERVICES, Installation
from tests.support.ledger import Ledger
from tests.support.load import Load, Parcel

MAILS = 500
PROCESSES = ("ingress", "policy", "delivery", "keys", "nats")
RECIPIENT = "you@example.test"
# Two senders wait for an answer while a process dies, and delivery holds a handful of records.
IN_FLIGHT = 20


@pytest.fixture
def own_installation(folder: Path, dns: DnsServer):
    installation = Installation(
        folder,
        {
            "dns": {"servers": [dns.address]},
            "delivery": {"retry": {"interval": "1s", "max_retries": 1000}},
        },
    )
    installation.start()
    try:
        installation.add_account(RECIPIENT, PASSWORD)
        yield installation
    finally:
        installation.close()


@pytest.mark.slow
def test_no_accepted_mail_is_lost(own_installation: Installation) -> None:
    installation = own_installation
    ledger = Ledger()
    load = Load(
        port=installation.ports["mx"],
        ledger=ledger,
        parcel=lambda _: Parcel("alice@example.org", (RECIPIENT,)),
        helo="mail.example.org",
        wanted=MAILS,
    )
    sending = threading.Thread(target=load.run)
    sending.start()
    kills = kill_in_turn(installation, ledger, sending)
    sending.join()
    for service in SERVICES:
        installation.wait_ready(service)
    drain(installation, ledger)
    assert len(ledger.accepted) >= MAILS
    assert kills >= len(PROCESSES)
    assert ledger.problems(duplicates_allowed=kills * IN_FLIGHT) == []


def kill_in_turn(installation: Installation, ledger: Ledger, sending: threading.Thread) -> int:
    """Kill one process after another while mails are accepted. Returns the number of kills."""
    kills = 0
    for round_ in range(3):
        for name in PROCESSES:
            wanted = min(MAILS, (round_ * len(PROCESSES) + PROCESSES.index(name) + 1) * MAILS // 17)
            while sending.is_alive() and len(ledger.accepted) < wanted:
                time.sleep(0.01)
            if not sending.is_alive():
                return kills
            installation.kill(name)
            kills += 1
    return kills


def drain(installation: Installation, ledger: Ledger, *, seconds: float = 90) -> None:
    """Wait until all accepted mail arrived and the queue is empty; then enter what arrived."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        books = Ledger()
        for mail in installation.mail(RECIPIENT) + installation.mail(RECIPIENT, folder=".Junk"):
            books.was_delivered(mail, RECIPIENT)
        missing = {(mail_id, RECIPIENT) for mail_id in ledger.accepted} - books.arrived()
        listed = installation.gatepost("queue", "list")
        if not missing and listed.stdout.strip() == "the queue is empty":
            break
        time.sleep(0.5)
    for mail in installation.mail(RECIPIENT) + installation.mail(RECIPIENT, folder=".Junk"):
        ledger.was_delivered(mail, RECIPIENT)
