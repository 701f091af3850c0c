"""Recorded results under a candidate configuration: which decisions would have been others?

What the checks found is not found again: DNS has moved on. Only what the configuration makes of it
is made anew: actions, `on_error`, overrides of recipient domains, which SPF results are mismatches,
what DMARC asks for. Lists of senders, networks and recipients are as they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from gatepost.queue.v1 import event_pb2
from services.common.config.model import Config
from services.common.config.policy import Policy
from services.common.mail.reply import OK
from services.policy.action import Action
from services.policy.answers import ACTION_NUMBERS
from services.policy.checks.check import CANNOT_TELL, Check, Standing
from services.policy.checks.table import ENVELOPE_CHECKS, MESSAGE_CHECKS
from services.policy.recorded import finding_of
from services.policy.requests import RECIPIENT
from services.policy.rules import Rules
from services.policy.verdict import ActionTable, Result, Verdict, decide

MAX_CANDIDATE_OCTETS = 1024 * 1024

_CHECKS: dict[str, Check[Any]] = {
    **{check.name: check for check in MESSAGE_CHECKS},
    **{check.name: check for check in ENVELOPE_CHECKS},
}


class BadCandidate(ValueError):
    """The candidate is no configuration; the message says why."""


def candidate_rules(text: str, config: Config) -> Rules:
    """The current configuration with the candidate's `policy` section. Raises `BadCandidate`."""
    if len(text) > MAX_CANDIDATE_OCTETS:
        raise BadCandidate(f"more than {MAX_CANDIDATE_OCTETS} octets")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BadCandidate(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "policy" not in values:
        raise BadCandidate("there is no section `policy` in it")
    try:
        policy = Policy.model_validate(values["policy"] or {})
    except ValidationError as error:
        raise BadCandidate("; ".join(_problems(error))) from error
    return Rules(config.model_copy(update={"policy": policy}))


class Replay:
    """The answer of a replay while it grows."""

    def __init__(self, rules: Rules, *, max_examples: int) -> None:
        self._rules = rules
        self._max_examples = max_examples
        self.response = pb.ReplayVerdictsResponse()

    def add(self, event: event_pb2.Event) -> None:
        """Judge one recorded verdict anew."""
        recorded, candidate = event.verdict.verdict, replayed(event.verdict, self._rules)
        self.response.replayed += 1
        number = ACTION_NUMBERS[candidate.action]
        if number == recorded.action:
            return
        self.response.changed += 1
        if len(self.response.examples) < self._max_examples:
            self.response.examples.add(
                message_id=event.message_id,
                sender=event.verdict.sender,
                recorded_action=recorded.action,
                candidate_action=number,
                decisive_check=candidate.decisive,
            )


def replayed(event: event_pb2.VerdictEvent, rules: Rules) -> Verdict:
    """The verdict that these rules make of recorded results."""
    table = rules.table_for_all(event.recipients)
    return decide([_judged(result, table, rules) for result in event.verdict.check_results])


def _judged(result: verdict_pb2.CheckResult, table: ActionTable, rules: Rules) -> Result:
    check = _CHECKS.get(result.check)
    finding = finding_of(result, check)
    if check is not None:
        if check.reconsider is not None:
            finding = check.reconsider(finding, rules.config.policy)
        return table.judged(finding, check)
    # A recipient's own result, or a check of another version: as it was.
    action = Action(result.configured_action) if result.configured_action else Action.ACCEPT
    standing = Standing.OBJECTS if result.objects else Standing.CLEAR
    reply = CANNOT_TELL if action is Action.DEFER else OK
    binding = result.check == RECIPIENT
    return Result(result.check, result.result, standing, action, reply, binding=binding)


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(["policy", *map(str, problem["loc"])])
        yield f"{key}: {problem['msg'].removeprefix('Value error, ')}"
