"""dmarc_fail: does the domain of the From address disown the mail?

RFC 9989. Results: `pass`, `fail`, `none`, `permerror`, `temperror`. It objects to a `fail` where
the domain asks for quarantine or reject; a domain that asks for nothing (`p=none`) must not change
what is done with its mail (§5.4). With `policy.dmarc.honour_published` the action is the one that
the domain asks for. A From field that no two readers would understand alike is objected to as
well, since it would be the way around DMARC (§11.5).
"""

from __future__ import annotations

from services.common.config.policy import Policy
from services.common.mail.author import FromProblem
from services.common.mail.reply import Reply
from services.policy.action import Action
from services.policy.checks.check import (
    Check,
    Evidence,
    Finding,
    Means,
    Standing,
    clear,
    dns_evidence,
    evidence,
    objects,
    unknown,
)
from services.policy.dmarc.evaluation import Outcome, evaluate, strictest
from services.policy.dmarc.record import Preference
from services.policy.subject import Mail

MAX_DOMAINS = 5
"""Of From addresses. Nobody writes in the name of more, and each costs look-ups."""

_ACTIONS = {
    Preference.NONE: Action.ACCEPT,
    Preference.QUARANTINE: Action.SPAM,
    Preference.REJECT: Action.REFUSE,
}
_AMBIGUOUS = frozenset({FromProblem.MALFORMED, FromProblem.TOO_LONG})


async def find(mail: Mail, means: Means) -> Finding:
    """Judge the mail for each domain in From."""
    authors = mail.authors
    named = [address.domain for address in authors.addresses if not address.is_literal]
    domains = list(dict.fromkeys(named))
    fact = evidence("dmarc.from", ", ".join(domains) or "none")
    if authors.problem in _AMBIGUOUS:
        return objects("permerror", f"The author cannot be told: {authors.problem}.", fact)
    if len(domains) > MAX_DOMAINS:
        return objects("permerror", f"From names {len(domains)} domains.", fact)
    if not domains:
        return clear("none", "From names no domain.", fact)
    identifiers = mail.identifiers
    outcomes = [await evaluate(each, identifiers, means.resolver) for each in domains]
    shown = ", ".join(map(str, identifiers.named)) or "none"
    facts = [fact, evidence("dmarc.authenticated", shown)]
    return _finding(strictest(outcomes), facts, honour=means.policy.dmarc.honour_published)


def _finding(outcome: Outcome, known: list[Evidence], *, honour: bool) -> Finding:
    facts = (*known, *_facts(outcome))
    text = f"{outcome.reason[:1].upper()}{outcome.reason[1:]}."
    if outcome.result == "temperror":
        return unknown(text, *facts)
    if outcome.result != "fail":
        return clear(outcome.result, text, *facts)
    text = f"{text[:-1]}, which asks for {outcome.preference.name.lower()}."
    return _failed(outcome.preference, text, facts, honour=honour)


def _failed(asked: Preference, text: str, facts: tuple[Evidence, ...], *, honour: bool) -> Finding:
    if asked is Preference.NONE:
        return clear("fail", text, *facts)
    action = _ACTIONS[asked] if honour else None
    return Finding("fail", Standing.OBJECTS, text, facts, action)


def reconsider(finding: Finding, policy: Policy) -> Finding:
    """A recorded failure, with what was published honoured or not."""
    asked = dict(finding.evidence).get("dmarc.policy", "").upper()
    if finding.result != "fail" or asked not in Preference.__members__:
        return finding
    honour = policy.dmarc.honour_published
    return _failed(Preference[asked], finding.explanation, finding.evidence, honour=honour)


def _facts(outcome: Outcome) -> list[Evidence]:
    facts = [dns_evidence(answer) for answer in outcome.answers]
    if outcome.organization:
        facts.append(evidence("dmarc.organizational_domain", outcome.organization))
    if outcome.published_at:
        facts.append(evidence("dmarc.policy_domain", outcome.published_at))
    if outcome.aligned:
        facts.append(evidence("dmarc.aligned", outcome.aligned))
    if outcome.result == "fail":
        facts.append(evidence("dmarc.policy", outcome.preference.name.lower()))
    return facts


CHECK = Check(
    name="dmarc_fail",
    find=find,
    # RFC 7372 §3.3
    refusal=Reply(550, "5.7.26", "The domain of the From address does not authorize the mail"),
    refusals={"permerror": Reply(550, "5.7.1", "The From field cannot be understood")},
    deferral=Reply(451, "4.7.26", "DMARC cannot be evaluated just now"),
    reconsider=reconsider,
)
