"""sender_unreachable: does the sender's mail exchange say that it would not take a reply?

Results: `pass`; `fail` when it refuses the address, or when the DNS says that there is nobody to
ask; `temperror` when it does not say, or cannot be asked just now; `none` where there is nothing to
ask about (a blank or invalid reverse-path, an address literal). It runs only where its action is
not `accept`: a callout is a burden on somebody else.
"""

from __future__ import annotations

from services.common.mail.reply import Reply
from services.policy.callout.callouts import Outcome, Question, Reachable
from services.policy.checks.check import (
    Check,
    Evidence,
    Finding,
    Means,
    clear,
    evidence,
    objects,
    unknown,
)
from services.policy.subject import Envelope


async def find(envelope: Envelope, means: Means) -> Finding:
    """Ask, or recall what was said."""
    sender = envelope.sender
    path = evidence("sender", f"<{envelope.sender_text}>")
    if sender is None or sender.is_literal:
        return clear("none", "There is no address to ask about.", path)
    if means.callouts is None:
        return unknown("There is no way to ask.", path)
    question = Question(sender, means.resolver, means.policy.callout, means.hostname, means.dry_run)
    outcome = await means.callouts.ask(question)
    facts = (path, *_facts(outcome))
    who = outcome.host or sender.domain
    match outcome.reachable:
        case Reachable.YES:
            return clear("pass", f"{who} would take a reply to {sender}.", *facts)
        case Reachable.NO:
            return objects("fail", f"{who} would not take a reply to {sender}.", *facts)
        case Reachable.UNKNOWN:
            return unknown(f"It cannot be told: {outcome.reason}.", *facts)


def _facts(outcome: Outcome) -> list[Evidence]:
    facts = [evidence("callout.outcome", outcome.reason)]
    if outcome.host:
        facts.append(evidence("callout.host", outcome.host))
    if outcome.reply:
        facts.append(evidence("callout.reply", outcome.reply))
    if outcome.remembered:
        facts.append(evidence("callout.remembered", "yes"))
    return facts


CHECK = Check(
    name="sender_unreachable",
    find=find,
    refusal=Reply(550, "5.1.8", "The sender's mail exchange would not take a reply"),
    deferral=Reply(451, "4.1.8", "The sender's mail exchange cannot be asked just now"),
    only_dns=False,
    only_if_it_matters=True,
)
