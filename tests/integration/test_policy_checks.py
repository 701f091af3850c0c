"""The checks of the policy service as a process: every action, who is judged, what is not known."""

import time

import grpc
import pytest

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from tests.support.arc_sealer import seal
from tests.support.dkim_signer import rsa_key, sign
from tests.support.dns_server import DnsServer
from tests.support.policy_cases import (
    ACCEPT,
    ACTIONS,
    CHECKS,
    DEFER,
    GOOD,
    MAIL,
    REFUSE,
    SPAM,
    check_message,
    domain_with,
    results_of,
    with_domains,
)
from tests.support.policy_process import PolicyProcess
from tests.support.soon import soon

# --- one action after the other -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "asked", "reply"),
    [
        ("helo_mismatch", {"helo": "other.example"}, "550 5.7.1 The HELO name does not lead"),
        ("invalid_sender", {"sender": "ann@gone.example"}, "550 5.1.8 The sender's domain"),
        ("invalid_sender", {"sender": "", "helo": "mx.example.org"}, "550 5.7.1 Mail with a blank"),
        ("spf_mismatch", {"sender": "ann@deny.example"}, "550 5.7.23 SPF validation failed"),
    ],
)
@pytest.mark.parametrize("action", ["default", "accept", "spam", "refuse"])
def test_actions_of_envelope_checks(
    policy: PolicyProcess, check: str, asked: dict[str, str], reply: str, action: str
) -> None:
    recipient = f"postmaster@{domain_with(check, action)}"
    [answer] = policy.check_envelope(**{**GOOD, **asked}, recipients=(recipient,)).recipients
    expected = {"default": SPAM, **ACTIONS}[action]
    decisive = "" if expected == ACCEPT else check
    assert (answer.verdict.action, answer.verdict.decisive_check) == (expected, decisive)
    if expected == REFUSE:
        assert said(answer.verdict).startswith(reply)
        assert not answer.deliver_to
    else:
        assert answer.verdict.reply.code == 250
        assert list(answer.deliver_to) == [recipient]


@pytest.mark.parametrize(
    ("check", "text", "default", "reply"),
    [
        ("dkim_invalid", sign(MAIL, rsa_key()).replace("Hello.", "Hallo."), SPAM, "550 5.7.20"),
        ("dkim_missing", MAIL, ACCEPT, "550 5.7.20"),
        ("dmarc_fail", MAIL.replace("example.org", "bank.example"), SPAM, "550 5.7.26"),
        ("from_mismatch", MAIL.replace("ann@", "eve@"), ACCEPT, "550 5.7.1"),
    ],
)
@pytest.mark.parametrize("action", ["default", "accept", "spam", "refuse"])
def test_actions_of_message_checks(
    policy: PolicyProcess, check: str, text: str, default: int, reply: str, action: str
) -> None:
    recipient = f"postmaster@{domain_with(check, action)}"
    answer = check_message(policy, text, recipients=[recipient])
    expected = {"default": default, **ACTIONS}[action]
    assert answer.verdict.action == expected
    assert answer.verdict.decisive_check == ("" if expected == ACCEPT else check)
    fields = {field.name: field.value for field in answer.header_fields}
    assert ("X-Spam-Flag" in fields) == (expected == SPAM)
    if expected == REFUSE:
        assert said(answer.verdict).startswith(reply)
        assert not fields


def said(verdict: verdict_pb2.Verdict) -> str:
    reply = verdict.reply
    return f"{reply.code} {reply.enhanced_code} {reply.text}"


def test_every_action_follows_the_configuration(policy: PolicyProcess) -> None:
    lists = {"lists": [{"zone": "bl.example"}]}
    for action, expected in ACTIONS.items():
        actions = dict.fromkeys((*CHECKS, "dnsbl_listed"), action)
        policy.configure({"policy": {"actions": actions, "dnsbl": lists}})
        answer = check_message(policy, helo="other.example")
        assert answer.verdict.action == expected
        configured = {each.check: each.configured_action for each in answer.verdict.check_results}
        assert configured == dict.fromkeys(actions, expected)


def test_a_recipient_domain_may_have_other_actions(policy: PolicyProcess) -> None:
    policy.configure(
        {
            "domains": {"local": ["example.test", "strict.test"]},
            "policy": {"domains": {"strict.test": {"actions": {"helo_mismatch": "refuse"}}}},
        }
    )
    answer = policy.check_envelope(
        helo="other.example",
        sender="ann@example.org",
        recipients=("you@example.test", "abuse@strict.test"),
    )
    assert [each.verdict.action for each in answer.recipients] == [SPAM, REFUSE]
    assert answer.verdict.action == SPAM
    both = check_message(
        policy, helo="other.example", recipients=["you@example.test", "abuse@strict.test"]
    )
    assert both.verdict.action == REFUSE


def test_an_invalid_configuration_changes_nothing(policy: PolicyProcess) -> None:
    policy.break_configuration("policy: {actions: {helo_mismatch: maybe}}")
    assert policy.metric("gatepost_config_valid") == 0
    assert "policy.actions.helo_mismatch" in policy.log()
    [answer] = policy.check_envelope(helo="other.example", sender="ann@example.org").recipients
    assert answer.verdict.action == SPAM


# --- who is judged ------------------------------------------------------------------------------


def test_a_good_mail_passes_every_check(policy: PolicyProcess) -> None:
    answer = check_message(policy, sign(MAIL, rsa_key()))
    assert answer.verdict.action == ACCEPT
    assert results_of(answer.verdict) == {
        "helo_mismatch": "pass",
        "invalid_sender": "pass",
        "spf_mismatch": "pass",
        "dkim_invalid": "pass",
        "dkim_missing": "pass",
        "dmarc_fail": "none",
        "from_mismatch": "pass",
    }
    fields = {field.name: field.value for field in answer.header_fields}
    assert "dkim=pass" in fields["Authentication-Results"]
    assert "spf=pass" in fields["Authentication-Results"]


@pytest.mark.parametrize("client", ["2001:db8::1", "::ffff:192.0.2.1"])
def test_clients_of_either_family(policy: PolicyProcess, client: str) -> None:
    answer = policy.check_envelope(client=client, **GOOD)
    assert results_of(answer.verdict) == {
        "helo_mismatch": "pass",
        "invalid_sender": "pass",
        "spf_mismatch": "pass",
    }


def test_a_submission_is_not_judged_and_goes_anywhere(policy: PolicyProcess) -> None:
    answer = policy.check_envelope(
        helo="[laptop]", sender="", recipients=("bob@elsewhere.test",), account="you@example.test"
    )
    assert not answer.verdict.check_results
    assert list(answer.recipients[0].deliver_to) == ["bob@elsewhere.test"]
    mail = check_message(policy, account="you@example.test", sender="", helo="x")
    assert (mail.verdict.action, len(mail.header_fields)) == (ACCEPT, 0)


def test_trusted_networks_are_not_judged_and_may_not_relay(policy: PolicyProcess) -> None:
    policy.configure({"policy": {"networks": {"trusted": ["192.0.2.0/24"]}}})
    answer = policy.check_envelope(
        helo="x", sender="", recipients=("you@example.test", "bob@elsewhere.test")
    )
    assert not answer.verdict.check_results
    assert [each.verdict.reply.code for each in answer.recipients] == [250, 550]


@pytest.mark.timed
@pytest.mark.parametrize(
    ("on_error", "action", "code"),
    [("accept", ACCEPT, 250), ("spam", SPAM, 250), ("defer", DEFER, 451)],
)
async def test_what_cannot_be_told_follows_on_error(
    policy: PolicyProcess, on_error: str, action: int, code: int
) -> None:
    checks = ("helo_mismatch", "invalid_sender", "spf_mismatch")
    unknown = dict.fromkeys(checks, on_error)
    policy.configure({"policy": {"on_error": unknown, "check_timeout": "300ms"}})

    async def attempt() -> float:
        started = time.monotonic()
        [answer] = policy.check_envelope(
            helo="slow.example.org", sender="x@slow.example"
        ).recipients
        took = time.monotonic() - started
        results = {result.check: result for result in answer.verdict.check_results}
        for check in checks:
            result = results[check]
            assert (result.result, result.configured_action) == ("temperror", action)
        assert (answer.verdict.action, answer.verdict.reply.code) == (action, code)
        return took

    await soon(attempt, seconds=2)


def test_a_short_deadline_of_the_caller_still_brings_a_verdict(
    policy: PolicyProcess, dns: DnsServer
) -> None:
    # Asked for the first time, so that no lookup of these ends by itself meanwhile.
    dns.timeout |= {"late.example", "late.example.org"}
    request = pb.CheckEnvelopeRequest(
        session=pb.Session(client_address="192.0.2.1", helo="late.example.org"),
        sender="x@late.example",
        recipients=["you@example.test"],
        dry_run=True,
    )
    assert set(results_of(_answer_in_time(policy, request).verdict).values()) == {"temperror"}


def _answer_in_time(
    policy: PolicyProcess, request: pb.CheckEnvelopeRequest
) -> pb.CheckEnvelopeResponse:
    """The answer within the deadline; the machine may stand still at the end of some."""
    for _ in range(4):
        try:
            answer: pb.CheckEnvelopeResponse = policy.checks.CheckEnvelope(request, timeout=2)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # type: ignore[attr-defined]
                raise
        else:
            return answer
    raise AssertionError("no answer came within the deadline of the caller")


def test_what_a_domain_publishes_can_be_honoured(policy: PolicyProcess) -> None:
    policy.configure(with_domains({"dmarc": {"honour_published": True}}))
    answer = check_message(policy, MAIL.replace("example.org", "bank.example"))
    assert said(answer.verdict).startswith("550 5.7.26")
    answer = check_message(policy, MAIL)
    assert answer.verdict.action == ACCEPT
    fields = {field.name: field.value for field in answer.header_fields}
    assert "dmarc=none header.from=example.org" in fields["Authentication-Results"]


REPORT = """\
From: mailer@mx.example.org
Content-Type: multipart/report; report-type=delivery-status; boundary=x

--x--
"""


def test_notifications_are_told_from_other_mail_without_a_sender(policy: PolicyProcess) -> None:
    policy.configure(
        {"policy": {"null_sender": "reports", "actions": {"invalid_sender": "refuse"}}}
    )
    asked = {"helo": "spf.example.org", "sender": "", "client": "192.0.2.1"}
    first = policy.check_envelope(**asked)
    assert first.verdict.action != REFUSE
    assert check_message(policy, REPORT, **asked).verdict.action != REFUSE
    refused = check_message(policy, MAIL, **asked)
    assert said(refused.verdict).startswith("550 5.7.1")
    assert refused.verdict.decisive_check == "invalid_sender"


def test_lists_outweigh_checks_and_not_recipients(policy: PolicyProcess) -> None:
    policy.configure(
        {
            "policy": {
                "allow": ["192.0.2.1", "example.org"],
                "deny": ["example.org", "198.51.100.0/24"],
            }
        }
    )
    asked = {"helo": "other.example", "recipients": ("you@example.test", "nobody@example.test")}
    allowed = policy.check_envelope(**asked, sender="ann@deny.example").recipients
    assert [each.verdict.action for each in allowed] == [ACCEPT, REFUSE]
    assert [each.verdict.decisive_check for each in allowed] == ["allow", "recipient"]
    mail = check_message(
        policy,
        sender="ann@deny.example",
        helo="other.example",
        envelope_results=allowed[0].verdict.check_results,
    )
    assert (mail.verdict.action, mail.verdict.decisive_check) == (ACCEPT, "allow")
    denied = policy.check_envelope(**asked, client="203.0.113.1", sender="ann@example.org")
    assert said(denied.recipients[0].verdict).startswith("550 5.7.1 Mail from you")
    denied = policy.check_envelope(**asked, client="198.51.100.7", sender="x@other.example")
    assert denied.verdict.decisive_check == "deny"


def test_recipients_under_different_rules_are_told_apart(policy: PolicyProcess) -> None:
    own = {"actions": {"helo_mismatch": "refuse"}}
    policy.configure(
        {
            "domains": {"local": ["example.test", "a.test", "b.test", "same.test"]},
            "policy": {
                "domains": {
                    "a.test": own,
                    "b.test": own,
                    "same.test": {"actions": {"helo_mismatch": "spam"}},
                }
            },
        }
    )
    recipients = tuple(
        f"abuse@{domain}" for domain in ("example.test", "a.test", "b.test", "same.test")
    )
    answer = policy.check_envelope(**GOOD, recipients=recipients)
    assert [each.rules for each in answer.recipients] == ["", "a.test", "a.test", ""]


def test_greylisting_tells_newcomers_to_come_again(policy: PolicyProcess) -> None:
    def configure(delay: str) -> None:
        greylist = {"enabled": True, "delay": delay}
        policy.configure({"policy": {"greylist": greylist, "allow": ["203.0.113.0/24"]}})

    def replies(**fields: str) -> list[int]:
        asked = {**GOOD, "recipients": ("postmaster", "nobody@example.test"), **fields}
        answer = policy.check_envelope(**asked)
        return [each.verdict.reply.code for each in answer.recipients]

    configure("1h")
    # A dry run says so and is not seen; an unknown recipient is told the truth at once.
    assert replies() == [451, 550]
    assert replies() == [451, 550]
    assert replies(message_id="grey-1") == [451, 550]
    assert replies(message_id="grey-1") == [451, 550]
    # How long somebody has to wait is judged when they come again.
    configure("1s")
    deadline = time.monotonic() + 30
    while replies(message_id="grey-2") != [250, 550]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert replies(client="192.0.2.200") == [250, 550]
    assert replies(client="198.51.100.1") == [451, 550]
    assert replies(client="203.0.113.1") == [250, 550]
    assert replies(account="you@example.test") == [250, 550]


def test_block_lists(policy: PolicyProcess) -> None:
    policy.configure(
        {
            "policy": {
                "dnsbl": {"lists": [{"zone": "bl.example"}]},
                "actions": {"dnsbl_listed": "refuse"},
            }
        }
    )
    answer = policy.check_envelope(**{**GOOD, "client": "198.51.100.9"})
    assert said(answer.verdict).startswith("550 5.7.1 Your address is on a block list")
    assert policy.check_envelope(**GOOD).verdict.action == ACCEPT


def test_a_trusted_forwarder_outweighs_our_own_failure(policy: PolicyProcess) -> None:
    theirs = seal(MAIL.replace("ann@example.org", "ceo@bank.example"), rsa_key())
    asked = {"client": "203.0.113.5", "sender": "ann@deny.example", "text": theirs}
    refuse = {"spf_mismatch": "refuse", "dmarc_fail": "refuse"}
    policy.configure({"policy": {"actions": refuse}})
    assert check_message(policy, **asked).verdict.action == REFUSE
    policy.configure({"policy": {"actions": refuse, "arc": {"trusted_sealers": ["example.org"]}}})
    answer = check_message(policy, **asked)
    assert answer.verdict.action == SPAM  # for its HELO name
    objecting = {result.check for result in answer.verdict.check_results if result.objects}
    assert not objecting & {"spf_mismatch", "dmarc_fail"}
    fields = {field.name: field.value for field in answer.header_fields}
    results = " ".join(fields["Authentication-Results"].split())
    assert "arc=pass (sealed by example.org) header.oldest-pass=0;" in results
