"""One mail for several domains, and next hops that come and go."""

import json
import smtplib
import time
from pathlib import Path
from uuid import uuid4

from tests.e2e.samples import SAMPLES, below_trace_fields
from tests.support.installation import Installation
from tests.support.sink import Sink

HELO = "mail.example.org"
SENDER = "alice@example.org"


def send(installation: Installation, recipients: list[str], mail: bytes) -> str:
    """Send a mail; the id that the 250 reply told."""
    with smtplib.SMTP("127.0.0.1", installation.ports["mx"], HELO, timeout=30) as client:
        client.ehlo()
        client.mail(SENDER, ["BODY=8BITMIME"])
        for recipient in recipients:
            code, text = client.rcpt(recipient)
            assert code == 250, text
        code, text = client.data(mail)
        assert code == 250, text
        return text.decode().split()[-1]


def events(installation: Installation, message_id: str) -> list[dict]:
    shown = installation.gatepost("queue", "show", message_id, "--json")
    assert shown.returncode == 0, shown.stderr
    found: list[dict] = json.loads(shown.stdout)["events"]
    return found


def test_three_recipients_in_three_domains(installation: Installation, sink: Sink) -> None:
    marker = uuid4().hex
    mail = SAMPLES["dots"](marker, SENDER)
    local = ("you@example.test", "me@second.test")
    before = {address: len(installation.mail(address)) for address in local}
    message_id = send(installation, [*local, "them@relay.test"], mail)
    for address in local:
        arrived = installation.wait_mail(address, before[address] + 1)[-1]
        assert below_trace_fields(arrived, mail)
    wait_gone(installation, message_id)
    assert below_trace_fields(sink.wait(marker.encode()), mail)
    attempts = [e["attempt"] for e in events(installation, message_id) if "attempt" in e]
    assert sorted(a["destination"] for a in attempts) == [
        "example.test",
        "relay.test",
        "second.test",
    ]


def test_one_id_leads_from_the_connection_to_the_delivery(installation: Installation) -> None:
    before = len(installation.mail("you@example.test"))
    message_id = send(installation, ["you@example.test"], SAMPLES["1 KB"](uuid4().hex, SENDER))
    installation.wait_mail("you@example.test", before + 1)
    wait_gone(installation, message_id)
    session = message_id.split("-", maxsplit=1)[0]
    for service, event in (("ingress", "message accepted"), ("delivery", "recipient tried")):
        line = json.loads(installation.wait_log(service, message_id, f'"{event}"'))
        assert (line["message"], line["msg"]) == (message_id, event)
    installation.wait_log("ingress", f'"session": "{session}"')


def test_a_large_mail_reaches_the_relay_unchanged(installation: Installation, sink: Sink) -> None:
    marker = uuid4().hex
    mail = SAMPLES["5 MB"](marker, SENDER)
    wait_gone(installation, send(installation, ["them@relay.test"], mail))
    assert below_trace_fields(sink.wait(marker.encode()), mail)


def test_a_next_hop_that_is_down_is_waited_for(installation: Installation, sink: Sink) -> None:
    marker = uuid4().hex
    mail = SAMPLES["1 KB"](marker, SENDER)
    sink.stop()
    try:
        message_id = send(installation, ["them@relay.test"], mail)
        entry = deferred(installation, message_id)
        assert entry["destination"] == "relay.test"
        assert entry["attempts"] >= 1
        assert "127.0.0.1" in entry["wait_reason"]
        assert entry["due_time"]
        wait_listed(installation, message_id, "deferred")
    finally:
        sink.start()
    wait_gone(installation, message_id)
    assert below_trace_fields(sink.wait(marker.encode()), mail)


def wait_listed(
    installation: Installation, message_id: str, state: str, *, seconds: float = 60
) -> None:
    """Return once the queue as people see it has a line for a mail in this state.

    What is deferred is not, in the moments when it is tried again.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        shown = installation.gatepost("queue", "list")
        assert shown.returncode == 0, shown.stderr
        if any(message_id in line and state in line for line in shown.stdout.splitlines()):
            return
        time.sleep(0.2)
    raise TimeoutError(f"the mail is not listed as {state}\n{shown.stdout}")


def deferred(installation: Installation, message_id: str, *, seconds: float = 60) -> dict:
    """The queue's entry for a mail once it is deferred."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        listed = installation.gatepost("queue", "list", "--state", "deferred", "--json")
        assert listed.returncode == 0, listed.stderr
        for entry in json.loads(listed.stdout):
            if entry["message_id"] == message_id:
                return entry
        time.sleep(0.2)
    raise TimeoutError("the mail was not deferred\n" + installation.log_tail("delivery"))


def wait_gone(installation: Installation, message_id: str, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        listed = installation.gatepost("queue", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        if message_id not in listed.stdout:
            return
        time.sleep(0.2)
    raise TimeoutError("the mail is still in the queue")


def test_an_operator_holds_releases_and_cancels(installation: Installation, sink: Sink) -> None:
    suspended = installation.gatepost("queue", "suspend", "relay.test")
    assert suspended.returncode == 0, suspended.stderr
    ids = [
        send(installation, ["them@relay.test"], SAMPLES["1 KB"](uuid4().hex, SENDER))
        for _ in range(3)
    ]
    for message_id in ids:
        deferred(installation, message_id)
    assert changed(installation, "hold", ids[0], ids[1]) == set(ids[:2])
    held = installation.gatepost("queue", "list", "--state", "held", "--json")
    assert {entry["message_id"] for entry in json.loads(held.stdout)} == set(ids[:2])
    assert changed(installation, "cancel", ids[1]) == {ids[1]}
    resumed = installation.gatepost("queue", "resume", "relay.test")
    assert resumed.returncode == 0, resumed.stderr
    assert changed(installation, "release", "--state", "held", "--yes") == {ids[0]}
    for message_id in ids:
        wait_gone(installation, message_id)
    arrived = b"".join(sink.mails())
    assert [message_id.encode() in arrived for message_id in ids] == [True, False, True]


def changed(installation: Installation, *arguments: str) -> set[str]:
    """Run a command that changes records; the ids of those that it changed."""
    done = installation.gatepost("queue", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return {entry["message_id"] for entry in json.loads(done.stdout)}


def test_nothing_is_left_behind(installation: Installation, folder: Path) -> None:
    """After all is delivered the queue is empty and says so."""
    listed = installation.gatepost("queue", "list")
    assert listed.returncode == 0
    assert listed.stdout.strip() == "the queue is empty"
