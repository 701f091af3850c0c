"""spf_mismatch: may this client send for the reverse-path's domain?

RFC 7208. The identity is MAIL FROM; for the null sender it is `postmaster@` the HELO name (§2.4).
Results are those of §2.6. `policy.spf.mismatch_results` says which of them count as a mismatch;
`temperror` is "cannot tell just now".
"""

from __future__ import annotations

from dataclasses import replace

from services.common.config.policy import Policy
from services.common.mail.address import HeloKind
from services.common.mail.reply import Reply
from services.policy.checks.check import (
    TEMPERROR,
    Check,
    Finding,
    Means,
    Standing,
    evidence,
)
from services.policy.spf_evaluation import SpfRequest, check_host
from services.policy.subject import Envelope

_WORDS = {
    "none": "{domain} publishes no SPF record.",
    "neutral": "{domain} says nothing about {client}.",
    "pass": "{domain} permits {client}.",
    "fail": "{domain} does not permit {client}.",
    "softfail": "{domain} says that {client} is probably not permitted.",
    "permerror": "The SPF record of {domain} cannot be evaluated: {problem}.",
    "temperror": "The SPF record of {domain} cannot be evaluated just now: {problem}.",
}


def identity(envelope: Envelope) -> tuple[str, str, str]:
    """What is judged: `mailfrom` or `helo`, the local part, the domain.

    An invalid reverse-path still has a domain of sorts after its last @, and is judged by that. The
    dot at the end of an absolute name is no part of it (RFC 7208 §4.3).
    """
    if envelope.is_null:
        helo = envelope.session.helo
        known = helo.kind is HeloKind.DOMAIN
        name = helo.value if known else envelope.session.helo_text
        return "helo", "postmaster", name.removesuffix(".")
    local_part, _, domain = envelope.sender_text.rpartition("@")
    if envelope.sender is not None:
        # In the spelling of the wire, since macros show it, but a U-label is asked for as A-label.
        return "mailfrom", local_part, domain if domain.isascii() else envelope.sender.domain
    return "mailfrom", local_part, domain.removesuffix(".")


async def find(envelope: Envelope, means: Means) -> Finding:
    """Evaluate the SPF policy of the sender's domain."""
    kind, local_part, domain = identity(envelope)
    client = str(envelope.session.address)
    request = SpfRequest(
        client=client,
        local_part=local_part,
        domain=domain,
        helo=envelope.session.helo_text,
        receiver=means.hostname,
    )
    outcome = await check_host(
        request, means.resolver, remember=not means.dry_run, turns=means.turns
    )
    text = _WORDS[outcome.result].format(
        domain=domain or "A blank name", client=client, problem=outcome.problem
    )
    facts = (
        evidence("spf.identity", kind),
        evidence("spf.domain", domain),
        evidence("client.address", client),
        *outcome.evidence,
    )
    mismatches = means.policy.spf.mismatch_results
    return Finding(outcome.result, _standing(outcome.result, mismatches), text, facts)


def reconsider(finding: Finding, policy: Policy) -> Finding:
    """A recorded result, with other results as mismatches."""
    return replace(finding, standing=_standing(finding.result, policy.spf.mismatch_results))


def _standing(result: str, mismatches: tuple[str, ...]) -> Standing:
    if result == TEMPERROR:
        return Standing.UNKNOWN
    return Standing.OBJECTS if result in mismatches else Standing.CLEAR


CHECK = Check(
    name="spf_mismatch",
    find=find,
    # RFC 7372 §3.2
    refusal=Reply(550, "5.7.23", "SPF validation failed"),
    refusals={"permerror": Reply(550, "5.7.24", "SPF validation error")},
    deferral=Reply(451, "4.7.24", "SPF cannot be validated just now"),
    reconsider=reconsider,
)
