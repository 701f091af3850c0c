"""The policy service as a process: real gRPC, real DNS, real NATS."""

import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from gatepost.policy.v1 import directory_pb2, verdict_pb2
from gatepost.policy.v1 import policy_pb2 as pb
from services.common.rpc.auth import Role
from tests.support.dkim_signer import KEY_NAME, record, rsa_key, sign
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess

CHECK_ENVELOPE = "gatepost.policy.v1.PolicyService/CheckEnvelope"
CHECK_MESSAGE = "gatepost.policy.v1.PolicyService/CheckMessage"
EXPLAIN = "gatepost.policy.v1.PolicyService/ExplainMessage"

ZONE = {
    ("mx.example.org", "A"): ["192.0.2.1"],
    ("mx.example.org", "AAAA"): ["2001:db8::1"],
    ("example.org", "MX"): ["10 mx.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"],
    ("deny.example", "MX"): ["10 mx.example.org"],
    ("deny.example", "TXT"): ["v=spf1 -all"],
    ("slow.example", "TXT"): ["v=spf1 a -all"],
    (KEY_NAME, "TXT"): [record(rsa_key())],
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
    "from_mismatch",
)


def domain_with(check: str, action: str) -> str:
    """The local domain for whose mail this check has this action, and the others accept."""
    return f"{action}.{check.replace('_', '-')}.test"


def with_domains(policy: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration with a domain for each check and action."""
    combinations = [(check, action) for check in CHECKS for action in ("default", *ACTIONS)]
    domains = {
        domain_with(check, action): {
            "actions": {
                **{other: "accept" for other in CHECKS if other != check},
                **({} if action == "default" else {check: action}),
            }
        }
        for check, action in combinations
    }
    return {
        "domains": {"local": ["example.test", *domains]},
        "policy": {"domains": domains, **(policy or {})},
    }


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE, timeout={"slow.example", "slow.example.org"}) as server:
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, dns: DnsServer
) -> Iterator[PolicyProcess]:
    folder = tmp_path_factory.mktemp("policy")
    with PolicyProcess(
        folder, nats_url=nats_server.url, dns=dns.address, config=with_domains()
    ) as process:
        request = directory_pb2.CreateAccountRequest(address="you@example.test")
        process.call(process.directory.CreateAccount, request, role=Role.OPERATOR)
        yield process


@pytest.fixture
def policy(running: PolicyProcess) -> Iterator[PolicyProcess]:
    """The process with the configuration of the module, whatever a test made of it."""
    yield running
    if running.changed:
        running.configure(with_domains(), is_start=True)


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


def test_actions_follow_the_configuration(policy: PolicyProcess) -> None:
    for action, expected in ACTIONS.items():
        policy.configure(with_domains({"actions": {"helo_mismatch": action}}))
        [answer] = policy.check_envelope(helo="other.example", sender=GOOD["sender"]).recipients
        assert answer.verdict.action == expected


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


@pytest.mark.parametrize(
    ("on_error", "action", "code"),
    [("accept", ACCEPT, 250), ("spam", SPAM, 250), ("defer", DEFER, 451)],
)
def test_what_cannot_be_told_follows_on_error(
    policy: PolicyProcess, on_error: str, action: int, code: int
) -> None:
    policy.configure({"policy": {"on_error": {"spf_mismatch": on_error}, "check_timeout": "300ms"}})
    started = time.monotonic()
    [answer] = policy.check_envelope(helo="mx.example.org", sender="x@slow.example").recipients
    assert time.monotonic() - started < 2
    results = {result.check: result for result in answer.verdict.check_results}
    assert results["spf_mismatch"].result == "temperror"
    assert (answer.verdict.action, answer.verdict.reply.code) == (action, code)


def test_a_short_deadline_of_the_caller_still_brings_a_verdict(policy: PolicyProcess) -> None:
    request = pb.CheckEnvelopeRequest(
        session=pb.Session(client_address="192.0.2.1", helo="slow.example.org"),
        sender="x@slow.example",
        recipients=["you@example.test"],
        dry_run=True,
    )
    answer = policy.checks.CheckEnvelope(request, timeout=0.6)
    assert set(results_of(answer.verdict).values()) == {"temperror"}


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


def explain(policy: PolicyProcess, message_id: str) -> pb.ExplainMessageResponse:
    """The event is published beside the answer; a moment later it is there."""
    request = pb.ExplainMessageRequest(message_id=message_id)
    deadline = time.monotonic() + 5
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


def test_what_is_not_built_says_so(policy: PolicyProcess) -> None:
    method = "gatepost.policy.v1.PolicyService/ReplayVerdicts"
    assert "Unimplemented" in policy.grpcurl(method, {}, role=Role.OPERATOR).stderr
