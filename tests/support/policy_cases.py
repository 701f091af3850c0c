"""What tests of the policy service ask about: a zone, a mail, and a domain for every action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from services.common.rpc.auth import Role
from tests.support.dkim_signer import KEY_NAME, record, rsa_key
from tests.support.policy_process import PolicyProcess

ZONE = {
    ("mx.example.org", "A"): ["192.0.2.1"],
    ("mx.example.org", "AAAA"): ["2001:db8::1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"],
    ("spf.example.org", "A"): ["192.0.2.1"],
    ("spf.example.org", "TXT"): ["v=spf1 a -all"],
    ("deny.example", "MX"): ["10 mx.example.org"],
    ("deny.example", "TXT"): ["v=spf1 -all"],
    ("slow.example", "TXT"): ["v=spf1 a -all"],
    ("9.100.51.198.bl.example", "A"): ["127.0.0.2"],
    (KEY_NAME, "TXT"): [record(rsa_key())],
    ("_dmarc.bank.example", "TXT"): ["v=DMARC1; p=reject"],
}

MAIL = "From: ann@example.org\nTo: you@example.test\nSubject: hello\n\nHello.\n"

ACCEPT, SPAM, DEFER, REFUSE = (
    verdict_pb2.ACTION_ACCEPT,
    verdict_pb2.ACTION_SPAM,
    verdict_pb2.ACTION_DEFER,
    verdict_pb2.ACTION_REFUSE,
)

ACTIONS = {"accept": ACCEPT, "spam": SPAM, "refuse": REFUSE}
CHECKS = (
    "helo_mismatch",
    "invalid_sender",
    "spf_mismatch",
    "dkim_invalid",
    "dkim_missing",
    "dmarc_fail",
    "from_mismatch",
)


def domain_with(check: str, action: str) -> str:
    """The local domain for whose mail this check has this action, and the others accept."""
    return f"{action}.{check.replace('_', '-')}.test"


def with_domains(
    policy: dict[str, Any] | None = None, *, checks: Sequence[str] = CHECKS
) -> dict[str, Any]:
    """A configuration with a domain for each check and action."""
    combinations = [(check, action) for check in checks for action in ("default", *ACTIONS)]
    domains = {
        domain_with(check, action): {
            "actions": {
                **{other: "accept" for other in checks if other != check},
                **({} if action == "default" else {check: action}),
            }
        }
        for check, action in combinations
    }
    return {
        "domains": {"local": ["example.test", *domains]},
        "policy": {"domains": domains, **(policy or {})},
    }


GOOD: dict[str, Any] = {"helo": "mx.example.org", "sender": "ann@example.org"}


def check_message(
    policy: PolicyProcess, text: str = MAIL, *, message_id: str = "", **fields: Any
) -> pb.CheckMessageResponse:
    session = pb.Session(
        client_address=fields.pop("client", "192.0.2.1"),
        helo=fields.pop("helo", "mx.example.org"),
        authenticated_account=fields.pop("account", ""),
    )
    request = pb.CheckMessageRequest(
        session=session,
        sender=fields.pop("sender", "ann@example.org"),
        recipients=fields.pop("recipients", ["you@example.test"]),
        content=text.replace("\n", "\r\n").encode(),
        dry_run=not message_id,
        message_id=message_id,
        **fields,
    )
    role = Role.SERVICE if message_id else None
    answer: pb.CheckMessageResponse = policy.call(policy.checks.CheckMessage, request, role=role)
    return answer


def results_of(verdict: verdict_pb2.Verdict) -> dict[str, str]:
    return {result.check: result.result for result in verdict.check_results}
