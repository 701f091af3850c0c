"""Dry runs, records and mistakes: the policy service as people and the ingress meet it."""

import json
import time
from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import directory_pb2
from gatepost.policy.v1 import policy_pb2 as pb
from services.common.rpc.auth import Role
from tests.support.dns_server import DnsServer
from tests.support.policy_cases import GOOD, MAIL, REFUSE, SPAM, ZONE, check_message, results_of
from tests.support.policy_process import PolicyProcess

CHECK_ENVELOPE = "gatepost.policy.v1.PolicyService/CheckEnvelope"
CHECK_MESSAGE = "gatepost.policy.v1.PolicyService/CheckMessage"
EXPLAIN = "gatepost.policy.v1.PolicyService/ExplainMessage"

# --- dry runs and records -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        GOOD,
        {"helo": "other.example", "sender": "ann@deny.example"},
        {"helo": "[192.0.2.1]", "sender": ""},
        {"helo": "", "sender": "garbage"},
        {**GOOD, "recipients": ("nobody@example.test", "bob@elsewhere.test", "you+x@example.test")},
    ],
)
def test_a_dry_run_says_what_real_mail_gets(policy: PolicyProcess, asked: dict[str, Any]) -> None:
    real = policy.check_envelope(message_id="same-1", **asked)
    dry = policy.check_envelope(**asked)
    for answer in (real, dry):
        for verdict in (answer.verdict, *(each.verdict for each in answer.recipients)):
            for result in verdict.check_results:
                result.ClearField("elapsed")
    assert real == dry


def test_a_dry_run_leaves_no_trace(policy: PolicyProcess) -> None:
    policy.configure({"recipients": {"auto_create": True}})

    def counted() -> list[float]:
        return [
            policy.metric("gatepost_policy_verdicts_total", stage="message", action="spam"),
            policy.metric("gatepost_policy_verdicts_total", stage="recipient", action="accept"),
            policy.metric("gatepost_policy_checks_total", check="spf_mismatch", result="pass"),
            policy.metric("gatepost_policy_accounts_created_total", origin="auto_created"),
            policy.metric("gatepost_policy_events_total", result="published"),
        ]

    before = counted()
    [answer] = policy.check_envelope(recipients=("new@example.test",), **GOOD).recipients
    assert list(answer.deliver_to) == ["new@example.test"]
    check_message(policy, helo="other.example")
    assert counted() == before
    request = directory_pb2.GetAccountRequest(address="new@example.test")
    with pytest.raises(grpc.RpcError) as missing:
        policy.call(policy.directory.GetAccount, request, role=Role.VIEWER)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_real_mail_is_counted(policy: PolicyProcess) -> None:
    def counted() -> dict[str, float]:
        return {
            "checks": policy.metric(
                "gatepost_policy_checks_total", check="helo_mismatch", result="fail"
            ),
            "actions": policy.metric(
                "gatepost_policy_actions_total", check="helo_mismatch", action="spam"
            ),
            "verdicts": policy.metric(
                "gatepost_policy_verdicts_total", stage="message", action="spam"
            ),
            "times": policy.metric("gatepost_policy_check_seconds_count", check="helo_mismatch"),
        }

    before = counted()
    check_message(policy, helo="other.example", message_id="counted-1")
    assert counted() == {name: value + 1 for name, value in before.items()}


def test_a_dry_run_fills_no_cache_of_production(policy: PolicyProcess, dns: DnsServer) -> None:
    dns.records["cached.example", "TXT"] = ["v=spf1 -all"]
    asked = {"helo": "mx.example.org", "sender": "x@cached.example"}
    policy.check_envelope(**asked)
    policy.check_envelope(**asked)
    assert dns.asked("cached.example", "TXT") == 1
    policy.check_envelope(message_id="cached-1", **asked)
    assert dns.asked("cached.example", "TXT") == 2
    policy.check_envelope(message_id="cached-2", **asked)
    assert dns.asked("cached.example", "TXT") == 2


def test_a_dry_run_sees_a_record_that_was_changed_just_now(
    policy: PolicyProcess, dns: DnsServer
) -> None:
    dns.ttls["fresh.example", "TXT"] = 0
    for record, result in (("v=spf1 -all", "fail"), ("v=spf1 ?all", "neutral")):
        dns.records["fresh.example", "TXT"] = [record]
        answer = policy.check_envelope(helo="mx.example.org", sender="x@fresh.example")
        assert results_of(answer.verdict)["spf_mismatch"] == result


def explain(policy: PolicyProcess, message_id: str) -> pb.ExplainMessageResponse:
    """The event is published beside the answer; a moment later it is there."""
    request = pb.ExplainMessageRequest(message_id=message_id)
    deadline = time.monotonic() + 30
    while True:
        try:
            found = policy.call(policy.checks.ExplainMessage, request, role=Role.VIEWER)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            assert isinstance(found, pb.ExplainMessageResponse)
            return found


def test_a_mail_can_be_explained_later(policy: PolicyProcess) -> None:
    answer = check_message(policy, message_id="explained-1", helo="other.example")
    found = explain(policy, "explained-1")
    assert found.verdict == answer.verdict
    assert list(found.header_fields) == list(answer.header_fields)
    assert (found.sender, list(found.recipients)) == ("ann@example.org", ["you@example.test"])
    assert found.session.helo == "other.example"


def test_a_refused_recipient_can_be_explained_later(policy: PolicyProcess) -> None:
    policy.check_envelope(message_id="refused-1", recipients=("nobody@example.test",), **GOOD)
    found = explain(policy, "refused-1")
    assert found.verdict.reply.enhanced_code == "5.1.1"


def test_a_deferred_recipient_can_be_explained_later(policy: PolicyProcess) -> None:
    policy.configure({"policy": {"greylist": {"enabled": True}}})
    policy.check_envelope(message_id="deferred-1", **GOOD)
    found = explain(policy, "deferred-1")
    assert (found.verdict.reply.code, found.verdict.decisive_check) == (451, "recipient")
    assert found.verdict.check_results[-1].result == "greylisted"


def test_results_of_the_envelope_are_taken_over(policy: PolicyProcess) -> None:
    first = policy.check_envelope(message_id="over-1", helo="other.example", sender=GOOD["sender"])
    # Whatever is in DNS by now: what was found at RCPT counts.
    answer = check_message(policy, envelope_results=first.verdict.check_results)
    assert answer.verdict.decisive_check == "helo_mismatch"
    taken = {result.check: result for result in answer.verdict.check_results}
    asked = {result.check: result for result in first.verdict.check_results}
    assert taken["helo_mismatch"].evidence == asked["helo_mismatch"].evidence


# --- people with grpcurl ------------------------------------------------------------------------


def test_grpcurl_lists_the_services(policy: PolicyProcess) -> None:
    answer = policy.grpcurl(
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", {"listServices": ""}
    )
    assert "gatepost.policy.v1.PolicyService" in answer.stdout


def test_grpcurl_gets_a_verdict_with_evidence(policy: PolicyProcess) -> None:
    request = {
        "session": {"clientAddress": "192.0.2.9", "helo": "mx.example.org"},
        "sender": "ann@example.org",
        "recipients": ["you@example.test"],
        "dryRun": True,
    }
    answer = json.loads(policy.grpcurl(CHECK_ENVELOPE, request).stdout)
    assert answer["verdict"]["action"] == "ACTION_SPAM"
    spf = next(r for r in answer["verdict"]["check_results"] if r["check"] == "spf_mismatch")
    assert {"name": "dns.txt", "value": f"example.org: {ZONE['example.org', 'TXT'][0]}"} in spf[
        "evidence"
    ]


@pytest.mark.parametrize(
    ("method", "request_text", "says"),
    [
        (CHECK_ENVELOPE, "{}", "Unauthenticated"),
        (CHECK_ENVELOPE, '{"dryRun": true}', "session: missing"),
        (CHECK_ENVELOPE, '{"dryRun": true, "session": {}}', "session.client_address"),
        (
            CHECK_ENVELOPE,
            '{"dryRun": true, "session": {"clientAddress": "192.0.2.1"}}',
            "recipients: between 1 and 1000 addresses, not 0",
        ),
        (
            CHECK_MESSAGE,
            '{"dryRun": true, "session": {"clientAddress": "::1"}, "recipients": ["x"]}',
            "mail: missing; give either header or content",
        ),
        (EXPLAIN, '{"messageId": "abc"}', "Unauthenticated"),
    ],
)
def test_mistakes_are_told(
    policy: PolicyProcess, method: str, request_text: str, says: str
) -> None:
    answer = policy.grpcurl(method, request_text)
    assert answer.returncode != 0
    assert says in answer.stderr


@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_real_checks_need_a_role(policy: PolicyProcess, role: Role | None) -> None:
    request = {
        "session": {"clientAddress": "192.0.2.1"},
        "recipients": ["you@example.test"],
        "messageId": "abc-1",
    }
    answer = policy.grpcurl(CHECK_ENVELOPE, request, role=role)
    assert "role" in answer.stderr
    for allowed in (Role.SERVICE, Role.OPERATOR):
        assert policy.grpcurl(CHECK_ENVELOPE, request, role=allowed).returncode == 0


# --- replay -------------------------------------------------------------------------------------


def replay(policy: PolicyProcess, candidate: str, since: float, **fields: Any) -> Any:
    request = pb.ReplayVerdictsRequest(candidate_policy=candidate, **fields)
    request.since_time.FromMilliseconds(int(since * 1000))
    return policy.call(policy.checks.ReplayVerdicts, request, role=Role.OPERATOR)


def test_a_candidate_is_tried_on_recorded_mail(policy: PolicyProcess) -> None:
    began = time.time()
    check_message(policy, message_id="replay-1")
    check_message(policy, message_id="replay-2", helo="other.example")
    check_message(policy, message_id="replay-3", sender="ann@deny.example")
    check_message(policy, MAIL.replace("example.org", "bank.example"), message_id="replay-4")
    policy.check_envelope(message_id="replay-5", recipients=("nobody@example.test",), **GOOD)
    for number in range(1, 6):
        explain(policy, f"replay-{number}")

    same = replay(policy, "policy: {}", began)
    assert (same.replayed, same.changed) == (5, 0)

    harder = replay(policy, "policy: {actions: {helo_mismatch: refuse}}", began)
    assert (harder.replayed, harder.changed) == (5, 1)
    [example] = harder.examples
    assert (example.message_id, example.decisive_check) == ("replay-2", "helo_mismatch")
    assert (example.recorded_action, example.candidate_action) == (SPAM, REFUSE)

    softer = replay(policy, "policy: {spf: {mismatch_results: []}}", began)
    assert [each.message_id for each in softer.examples] == ["replay-3"]

    honest = replay(policy, "policy: {dmarc: {honour_published: true}}", began)
    assert [each.message_id for each in honest.examples] == ["replay-4"]

    everything = (
        "policy: {actions: {helo_mismatch: accept, spf_mismatch: accept, dmarc_fail: accept}}"
    )
    few = replay(policy, everything, began, max_examples=1)
    assert (few.changed, len(few.examples)) == (3, 1)

    assert replay(policy, "policy: {}", time.time() + 60).replayed == 0


@pytest.mark.parametrize(
    ("request_text", "says"),
    [
        ("{}", "since_time: missing"),
        ('{"sinceTime": "2026-01-01T00:00:00Z"}', "candidate_policy: there is no section"),
        (
            '{"sinceTime": "2026-01-01T00:00:00Z", "candidatePolicy": "policy: {a: ["}',
            "candidate_policy: not YAML",
        ),
        (
            '{"sinceTime": "2026-01-01T00:00:00Z", "candidatePolicy": "policy: {x: 1}"}',
            "candidate_policy: policy.x",
        ),
        ('{"sinceTime": "2026-01-01T00:00:00Z", "maxExamples": 2000}', "max_examples: at most"),
    ],
)
def test_mistakes_in_a_replay_are_told(policy: PolicyProcess, request_text: str, says: str) -> None:
    method = "gatepost.policy.v1.PolicyService/ReplayVerdicts"
    answer = policy.grpcurl(method, request_text, role=Role.OPERATOR)
    assert says in answer.stderr
