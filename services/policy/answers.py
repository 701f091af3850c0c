"""Verdicts and routes as messages of the protos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf import duration_pb2

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from services.common.mail.reply import Reply
from services.policy.action import Action
from services.policy.verdict import Result, Verdict

ACTION_NUMBERS = {
    Action.ACCEPT: verdict_pb2.ACTION_ACCEPT,
    Action.SPAM: verdict_pb2.ACTION_SPAM,
    Action.DEFER: verdict_pb2.ACTION_DEFER,
    Action.REFUSE: verdict_pb2.ACTION_REFUSE,
}


def reply_message(reply: Reply) -> verdict_pb2.Reply:
    """A reply as a message."""
    return verdict_pb2.Reply(code=reply.code, enhanced_code=reply.enhanced, text=reply.text)


def result_message(result: Result, *, with_evidence: bool = True) -> verdict_pb2.CheckResult:
    """A result as a message."""
    seconds, nanos = divmod(round(result.elapsed_s * 1e9), 1_000_000_000)
    facts = result.evidence if with_evidence else ()
    return verdict_pb2.CheckResult(
        check=result.check,
        result=result.result,
        objects=result.objects,
        configured_action=ACTION_NUMBERS[result.action],
        explanation=result.explanation,
        evidence=[verdict_pb2.Evidence(name=name, value=value) for name, value in facts],
        elapsed=duration_pb2.Duration(seconds=seconds, nanos=nanos),
    )


def verdict_message(
    verdict: Verdict, results: Iterable[verdict_pb2.CheckResult]
) -> verdict_pb2.Verdict:
    """A verdict as a message; its results are made once, by whoever needs them twice."""
    return verdict_pb2.Verdict(
        action=ACTION_NUMBERS[verdict.action],
        reply=reply_message(verdict.reply),
        decisive_check=verdict.decisive,
        check_results=results,
    )


def recipient_answer(
    recipient: str,
    verdict: Verdict,
    deliver_to: Sequence[str],
    results: Iterable[verdict_pb2.CheckResult],
    *,
    rules: str,
) -> pb.RecipientAnswer:
    """The verdict on one recipient, with its results as messages."""
    taken = verdict.action in (Action.ACCEPT, Action.SPAM)
    return pb.RecipientAnswer(
        recipient=recipient,
        verdict=verdict_message(verdict, results),
        deliver_to=deliver_to if taken else (),
        rules=rules,
    )
