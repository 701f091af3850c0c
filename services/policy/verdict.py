"""From findings to a verdict: pure functions of what the checks found and what is configured.

The strongest action among the checks that object wins: refuse, then defer, then spam, then accept.
Of two checks with the same action the first in the table decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.mail.printable import one_line
from services.common.mail.reply import OK, Reply
from services.policy.action import Action
from services.policy.checks.check import (
    MAX_EVIDENCE_OCTETS,
    Check,
    Evidence,
    Finding,
    Standing,
)


@dataclass(frozen=True, slots=True)
class Result:
    """A finding with what the configuration makes of it."""

    check: str
    result: str
    standing: Standing
    action: Action
    """What is done with the mail if the check objects, or cannot tell."""
    reply: Reply
    """What the client is told if this result decides and the action is to refuse or defer."""
    explanation: str = ""
    evidence: tuple[Evidence, ...] = ()
    elapsed_s: float = 0.0
    binding: bool = False
    """Nothing that vouches for the mail outweighs it: there is no such recipient."""

    @property
    def objects(self) -> bool:
        """Whether the result counts against the mail: a doubt that is to be accepted does not."""
        if self.standing is Standing.UNKNOWN:
            return self.action is not Action.ACCEPT
        return self.standing is Standing.OBJECTS


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision."""

    action: Action
    reply: Reply
    decisive: str
    """The check that decided; empty if none objected, or only such as are to be accepted."""
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class ActionTable:
    """What is configured for one set of recipients, by check."""

    actions: Mapping[str, Action]
    on_error: Mapping[str, Action]
    name: str = ""
    """The domain whose actions these are; empty for the general ones."""

    def action(self, check: str, standing: Standing) -> Action:
        """What is done with mail of which the check says this."""
        if standing is Standing.UNKNOWN:
            return self.on_error.get(check, Action.ACCEPT)
        return self.actions.get(check, Action.ACCEPT)

    def judged(self, finding: Finding, check: Check[Any], *, elapsed_s: float = 0.0) -> Result:
        """What the configuration makes of a finding."""
        action = finding.action or self.action(check.name, finding.standing)
        if check.fixed_action is not None and finding.standing is Standing.OBJECTS:
            action = check.fixed_action
        deferred = action is Action.DEFER
        return Result(
            check.name,
            finding.result,
            finding.standing,
            action,
            check.deferral if deferred else check.refusal_for(finding.result),
            _shown(finding.explanation),
            finding.evidence,
            elapsed_s,
        )

    def strictest(self, other: ActionTable) -> ActionTable:
        """For a mail to recipients under different rules: of each check the stronger action."""
        checks = self.actions.keys() | other.actions.keys()
        actions = {
            check: max(self.action(check, Standing.OBJECTS), other.action(check, Standing.OBJECTS))
            for check in checks
        }
        return ActionTable(actions, self.on_error)


def _shown(explanation: str) -> str:
    """One printable line of bounded length: names and records in it were chosen by strangers."""
    is_short = len(explanation) <= MAX_EVIDENCE_OCTETS
    if is_short and explanation.isascii() and explanation.isprintable():
        return explanation  # nearly every one, and each mail has ten
    return one_line(explanation, limit=MAX_EVIDENCE_OCTETS)


def decide(results: Sequence[Result], *, accepted: Reply = OK) -> Verdict:
    """Combine results; `accepted` is the reply when the mail is taken.

    What vouches for a mail outweighs every objection that is not binding.
    """
    decisive = strongest(result for result in results if result.objects)
    if decisive is None or decisive.action is Action.ACCEPT:
        return Verdict(Action.ACCEPT, accepted, "", tuple(results))
    voucher = next((r for r in results if r.standing is Standing.VOUCHES), None)
    if voucher is not None:
        decisive = strongest(result for result in results if result.objects and result.binding)
        if decisive is None:
            return Verdict(Action.ACCEPT, accepted, voucher.check, tuple(results))
    taken = decisive.action is Action.SPAM
    reply = accepted if taken else decisive.reply
    return Verdict(decisive.action, reply, decisive.check, tuple(results))


def strongest(results: Iterable[Result]) -> Result | None:
    """The first of those with the strongest action."""
    # max() keeps the first of equals.
    return max(results, key=lambda result: result.action, default=None)
