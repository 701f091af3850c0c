"""Every check of policy through SMTP: its default, `accept`, `spam` and `refuse`.

And before each session a dry run, asked by gRPC and by `gatepost check`, says the same as the
session then gets, evidence included.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.dkim_signer import KEY_NAME, record, rsa_key, sign
from tests.support.dns_server import DnsServer
from tests.support.foretold import Mail, Outcome, foretell, recorded, send
from tests.support.installation import Installation
from tests.support.policy_cases import ACTIONS, CHECKS, MAIL, domain_with, with_domains
from tests.support.sink import Sink

ZONE = {
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
    ("deny.example", "MX"): ["10 mx.example.org"],
    ("deny.example", "TXT"): ["v=spf1 -all"],
    ("_dmarc.bank.example", "TXT"): ["v=DMARC1; p=reject"],
    (KEY_NAME, "TXT"): [record(rsa_key())],
    ("mx.example.org", "TXT"): ["v=spf1 a -all"],
    ("1.0.0.127.bl.example", "A"): ["127.0.0.2"],
}


@dataclass(frozen=True)
class Case:
    """A mail that one check objects to, and only that one."""

    default: str
    reply: str
    helo: str = "mx.example.org"
    sender: str = "ann@example.org"
    text: str = MAIL


CASES = {
    "helo_mismatch": Case(
        "spam",
        "5.7.1 The HELO name does not lead to your address",
        helo="wrong.example.org",
    ),
    "invalid_sender": Case(
        "spam", "5.1.8 The sender's domain does not exist or takes no mail", sender="a@gone.example"
    ),
    "blank_sender": Case("spam", "5.7.1 Mail with a blank sender is not taken", sender=""),
    "no_address": Case("spam", "5.1.7 The sender is not a valid address", sender="no.address"),
    "spf_mismatch": Case("spam", "5.7.23 SPF validation failed", sender="ann@deny.example"),
    "dkim_invalid": Case(
        "spam",
        "5.7.20 No DKIM signature of the mail is valid",
        text=sign(MAIL, rsa_key()).replace("Hello.", "Hi."),
    ),
    "dkim_missing": Case("accept", "5.7.20 The mail has no DKIM signature"),
    "dmarc_fail": Case(
        "spam",
        "5.7.26 The domain of the From address does not authorize the mail",
        text=MAIL.replace("example.org", "bank.example"),
    ),
    "from_mismatch": Case(
        "accept",
        "5.7.1 The From address is not the sender of the envelope",
        text=MAIL.replace("ann@", "eve@"),
    ),
    "sender_unreachable": Case("accept", "5.1.8 The sender's mail exchange would not take a reply"),
}
# Three cases are about the same check.
CHECK_OF = {"blank_sender": "invalid_sender", "no_address": "invalid_sender"}
ALL_CHECKS = (*CHECKS, "sender_unreachable")


@pytest.fixture(scope="module")
def exchange() -> Iterator[Sink]:
    """The mail exchange of example.org, which knows no recipient."""
    started = Sink("-f", "RCPT", "-B", "550 5.1.1 no such user")
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE, servfail={"mx.broken.example"}) as server:
        yield server


@pytest.fixture(scope="module")
def edge(
    tmp_path_factory: pytest.TempPathFactory, exchange: Sink, dns: DnsServer
) -> Iterator[Installation]:
    """An installation with a local domain for each check and action."""
    callout = {"port": exchange.port, "allowed_networks": ["127.0.0.1"]}
    config = {
        "dns": {"servers": [dns.address]},
        **with_domains({"callout": callout}, checks=ALL_CHECKS),
    }
    started = Installation(tmp_path_factory.mktemp("gatepost"), config)
    started.start()
    yield started
    started.close()


@pytest.mark.parametrize("action", ["default", *ACTIONS])
@pytest.mark.parametrize("name", CASES)
def test_options(edge: Installation, name: str, action: str) -> None:
    case, check = CASES[name], CHECK_OF.get(name, name)
    recipient = f"{'abuse' if name in CHECK_OF else 'postmaster'}@{domain_with(check, action)}"
    mail = Mail(recipient=recipient, helo=case.helo, sender=case.sender, text=case.text)
    expected = case.default if action == "default" else action
    folder = ".Junk" if expected == "spam" else ""
    before = len(edge.mail(recipient, folder=folder))
    told = foretell(edge, mail)
    outcome = send(edge, mail)
    assert recorded(edge, outcome) == told
    assert told["action"] == f"ACTION_{expected.upper()}"
    if expected == "refuse":
        assert (outcome.code, outcome.text) == (550, case.reply)
        return
    assert outcome.code == 250
    [arrived] = edge.wait_mail(recipient, before + 1, folder=folder)[before:]
    header = arrived.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode()
    is_spam = expected == "spam"
    assert ("\nX-Spam-Flag: YES\n" in header) == is_spam
    # Checks whose action is accept are named too; a callout is then not made at all.
    objecting = [each["check"] for each in told["check_results"] if each["objects"]]
    assert (check in objecting) == (check != "sender_unreachable" or is_spam)
    unfolded = header.replace("\n\t", " ").replace("\n ", " ")
    status = "Yes" if is_spam else "No"
    assert f"\nX-Spam-Status: {status}, tests={','.join(objecting) or 'none'}\n" in unfolded
    assert "\nAuthentication-Results: mail.example.test;" in header
    assert re.search(rf"^X-Gatepost-Verdict: {expected};", header, re.MULTILINE)


def test_the_exchange_was_asked_and_sent_no_mail(edge: Installation, exchange: Sink) -> None:
    """In a test of its own, since the answer is remembered from the first time on."""
    mail = Mail(recipient="postmaster@refuse.sender-unreachable.test", sender="eve@example.org")
    told = foretell(edge, mail)
    [result] = [each for each in told["check_results"] if each["check"] == "sender_unreachable"]
    facts = {fact["name"]: fact["value"] for fact in result["evidence"]}
    assert facts["callout.host"] == "mx.example.org [127.0.0.1]"
    assert "550 5.1.1 no such user" in facts["callout.reply"]
    outcome = send(edge, mail)
    assert outcome.code == 550
    assert recorded(edge, outcome) == told
    assert not exchange.mails()


REPORT = """\
From: mailer@mx.example.org
Content-Type: multipart/report; report-type=delivery-status; boundary=x

--x--
"""
WRONG_HELO = {"helo": "wrong.example.org"}
NO_SENDER = {"sender": "", "text": MAIL.replace("example.org", "mx.example.org")}
REFUSE_HELO = {"actions": {"helo_mismatch": "refuse"}}


@pytest.mark.parametrize(
    ("policy", "mail", "action", "reply"),
    [
        ({"deny": ["example.org"]}, {}, "refuse", "550 5.7.1 Mail from you is not taken here"),
        ({"deny": ["127.0.0.0/8"]}, {}, "refuse", "550 5.7.1 Mail from you is not taken here"),
        ({"deny": ["127.0.0.0/8"], "allow": ["ann@example.org"]}, {}, "accept", "250"),
        ({**REFUSE_HELO, "allow": ["127.0.0.1"]}, WRONG_HELO, "accept", "250"),
        ({**REFUSE_HELO, "networks": {"trusted": ["127.0.0.1"]}}, WRONG_HELO, "accept", "250"),
        (
            {"dnsbl": {"lists": [{"zone": "bl.example"}]}, "actions": {"dnsbl_listed": "refuse"}},
            {},
            "refuse",
            "550 5.7.1 Your address is on a block list",
        ),
        ({"dnsbl": {"lists": [{"zone": "bl.example"}]}}, {}, "spam", "250"),
        (
            {"greylist": {"enabled": True}},
            {},
            "defer",
            "451 4.7.1 Greylisted, please try again in some minutes",
        ),
        (
            {"null_sender": "reports", "actions": {"invalid_sender": "refuse"}},
            {**NO_SENDER, "text": REPORT},
            "accept",
            "250",
        ),
        (
            {"null_sender": "reports", "actions": {"invalid_sender": "refuse"}},
            NO_SENDER,
            "refuse",
            "550 5.7.1 Mail with a blank sender is not taken",
        ),
        (
            {"dmarc": {"honour_published": True}},
            {"text": MAIL.replace("example.org", "bank.example")},
            "refuse",
            "550 5.7.26 The domain of the From address does not authorize the mail",
        ),
        ({"spf": {"mismatch_results": []}}, {"sender": "ann@deny.example"}, "accept", "250"),
        (
            {"on_error": {"helo_mismatch": "defer"}},
            {"helo": "mx.broken.example"},
            "defer",
            "451 4.4.3 Your HELO name cannot be looked up just now",
        ),
        ({"on_error": {"helo_mismatch": "spam"}}, {"helo": "mx.broken.example"}, "spam", "250"),
    ],
    ids=[
        *("deny-domain", "deny-network", "allow-address", "allow-network", "trusted"),
        *("dnsbl-refuse", "dnsbl-default", "greylist", "report", "no-report", "honour"),
        *("spf-results", "on-error-defer", "on-error-spam"),
    ],
)
def test_other_settings_follow_the_configuration(
    edge: Installation,
    dns: DnsServer,
    policy: dict[str, Any],
    mail: dict[str, str],
    action: str,
    reply: str,
) -> None:
    edge.reconfigure({"dns": {"servers": [dns.address]}, "policy": policy})
    asked = Mail(recipient="postmaster@example.test", **mail)
    told = foretell(edge, asked)
    outcome = send(edge, asked)
    assert recorded(edge, outcome) == told
    assert told["action"] == f"ACTION_{action.upper()}"
    assert f"{outcome.code} {outcome.text}".startswith(reply)
    if outcome.code == 250:
        assert any(
            outcome.message_id.encode() in each
            for each in wait_for(edge, folder=".Junk" if action == "spam" else "", outcome=outcome)
        )


def wait_for(edge: Installation, *, folder: str, outcome: Outcome) -> list[bytes]:
    """The mails of postmaster, once this one is among them."""
    deadline = time.monotonic() + 30
    while True:
        found = edge.mail("postmaster@example.test", folder=folder)
        if any(outcome.message_id.encode() in each for each in found):
            return found
        assert time.monotonic() < deadline, edge.log_tail("delivery")
        time.sleep(0.05)


def test_a_greylisted_mail_may_come_again(edge: Installation, dns: DnsServer) -> None:
    greylist = {"enabled": True, "delay": "1s"}
    edge.reconfigure({"dns": {"servers": [dns.address]}, "policy": {"greylist": greylist}})
    asked = Mail(recipient="abuse@example.test")
    codes = [send(edge, asked).code]
    deadline = time.monotonic() + 20
    while codes[-1] != 250 and time.monotonic() < deadline:
        time.sleep(0.2)
        codes.append(send(edge, asked).code)
    assert (codes[0], codes[-1]) == (451, 250)
    # Now it is known, to dry runs too.
    told = foretell(edge, asked)
    assert told["action"] == "ACTION_ACCEPT"
