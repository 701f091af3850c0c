"""Verdicts and routes as messages of the protos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from services.policy.action import Action
from services.policy.verdict import Result, Verdict

ACTION_NUMBERS = {
    Action.ACCEPT: verdict_pb2.ACTION_ACCEPT,
    Action.SPAM: verdict_pb2.ACTION_SPAM,
    Action.DEFER: verdict_pb2.ACTION_DEFER,
    Action.REFUSE: verdict_pb2.ACTION_REFUSE,
}


def add_results(
    verdict: verdict_pb2.Verdict, results: Iterable[Result], *, with_evidence: bool = True
) -> None:
    """Write results into a message, behind those that are there."""
    # All in place: a message that is handed over is copied.
    for result in results:
        message = verdict.check_results.add(
            check=result.check,
            result=result.result,
            objects=result.objects,
            configured_action=ACTION_NUMBERS[result.action],
            explanation=result.explanation,
        )
        if with_evidence:
            add = message.evidence.add
            for name, value in result.evidence:
                add(name=name, value=value)
        elapsed = message.elapsed
        elapsed.seconds, elapsed.nanos = divmod(round(result.elapsed_s * 1e9), 1_000_000_000)


def fill_verdict(message: verdict_pb2.Verdict, verdict: Verdict) -> None:
    """Write a verdict into a message, without its results."""
    message.action = ACTION_NUMBERS[verdict.action]
    message.decisive_check = verdict.decisive
    reply, said = message.reply, verdict.reply
    reply.code, reply.enhanced_code, reply.text = said.code, said.enhanced, said.text


def fill_recipient(answer: pb.RecipientAnswer, verdict: Verdict, deliver_to: Sequence[str]) -> None:
    """Write the verdict on one recipient into its answer, without its results."""
    fill_verdict(answer.verdict, verdict)
    if verdict.action in (Action.ACCEPT, Action.SPAM):
        answer.deliver_to.extend(deliver_to)
