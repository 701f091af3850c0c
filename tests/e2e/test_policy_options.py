"""Every check of policy through SMTP: its default, `accept`, `spam` and `refuse`.

And a dry run says the same as the session got, evidence included.
"""

import re
import smtplib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from tests.support.dkim_signer import KEY_NAME, record, rsa_key, sign
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.policy_cases import ACTIONS, CHECKS, MAIL, domain_with, with_domains

ZONE = {
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
    ("deny.example", "MX"): ["10 mx.example.org"],
    ("deny.example", "TXT"): ["v=spf1 -all"],
    ("_dmarc.bank.example", "TXT"): ["v=DMARC1; p=reject"],
    (KEY_NAME, "TXT"): [record(rsa_key())],
}


@dataclass(frozen=True)
class Case:
    """A mail that one check objects to, and only that one."""

    default: str
    reply: bytes
    helo: str = "mx.example.org"
    sender: str = "ann@example.org"
    text: str = MAIL


CASES = {
    "helo_mismatch": Case("spam", b"5.7.1 The HELO name", helo="wrong.example.org"),
    "invalid_sender": Case("spam", b"5.1.8 The sender's domain", sender="ann@gone.example"),
    "spf_mismatch": Case("spam", b"5.7.23 SPF validation failed", sender="ann@deny.example"),
    "dkim_invalid": Case(
        "spam", b"5.7.20 No DKIM signature", text=sign(MAIL, rsa_key()).replace("Hello.", "Hi.")
    ),
    "dkim_missing": Case("accept", b"5.7.20 The mail has no DKIM signature"),
    "dmarc_fail": Case(
        "spam", b"5.7.26 The domain of the From", text=MAIL.replace("example.org", "bank.example")
    ),
    "from_mismatch": Case("accept", b"5.7.1 The From address", text=MAIL.replace("ann@", "eve@")),
}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a local domain for each check and action."""
    with DnsServer(ZONE) as dns:
        config = {"dns": {"servers": [dns.address]}, **with_domains()}
        started = Installation(tmp_path_factory.mktemp("gatepost"), config)
        started.start()
        yield started
        started.close()


def deliver(edge: Installation, case: Case, recipient: str) -> tuple[int, bytes]:
    """The reply that ends the transaction: to RCPT if that is refused, otherwise to the content."""
    with smtplib.SMTP("127.0.0.1", edge.ports["mx"], case.helo, timeout=30) as client:
        client.ehlo()
        assert client.mail(case.sender)[0] == 250
        answer = client.rcpt(recipient)
        return client.data(wire(case)) if answer[0] == 250 else answer


def wire(case: Case) -> bytes:
    return case.text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("action", ["default", *ACTIONS])
@pytest.mark.parametrize("check", CHECKS)
def test_options(edge: Installation, check: str, action: str) -> None:
    case = CASES[check]
    recipient = f"postmaster@{domain_with(check, action)}"
    code, text = deliver(edge, case, recipient)
    expected = case.default if action == "default" else action
    if expected == "refuse":
        assert code == 550
        assert text.startswith(case.reply)
        return
    assert code == 250
    folder = ".Junk" if expected == "spam" else ""
    [arrived] = edge.wait_mail(recipient, 1, folder=folder)
    header = arrived.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    assert (b"\nX-Spam-Flag: YES" in header) == (expected == "spam")
    assert b"Authentication-Results: mail.example.test;" in header
    assert re.search(rb"^X-Gatepost-Verdict: %s;" % expected.encode(), header, re.MULTILINE)


def without_times(verdict: Any) -> Any:
    for result in verdict.check_results:
        result.ClearField("elapsed")
    return verdict


@pytest.mark.parametrize("check", CHECKS)
def test_a_dry_run_says_what_the_session_got(edge: Installation, check: str) -> None:
    case = CASES[check]
    recipient = f"postmaster@{domain_with(check, 'spam')}"
    code, text = deliver(edge, case, recipient)
    assert code == 250
    message_id = text.decode().rpartition(" ")[2]
    target = f"127.0.0.1:{edge.ports['policy']}"
    with grpc.insecure_channel(target) as channel:
        policy = PolicyServiceStub(channel)
        real = explained(edge, policy, message_id)
        request = pb.CheckMessageRequest(
            session=real.session,
            sender=case.sender,
            recipients=[recipient],
            content=wire(case),
            dry_run=True,
        )
        dry = policy.CheckMessage(request, timeout=20)
    assert without_times(dry.verdict) == without_times(real.verdict)


def explained(
    edge: Installation, policy: PolicyServiceStub, message_id: str
) -> pb.ExplainMessageResponse:
    """The recorded verdict, which is there a moment after the reply."""
    token = token_file(edge.data / "tokens", Role.VIEWER).read_text(encoding="ascii").strip()
    request = pb.ExplainMessageRequest(message_id=message_id)
    deadline = time.monotonic() + 10
    while True:
        try:
            return policy.ExplainMessage(
                request, metadata=[("authorization", f"Bearer {token}")], timeout=20
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
