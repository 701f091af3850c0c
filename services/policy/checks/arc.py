"""arc: what forwarders say that the mail was (RFC 8617). It never objects.

Results: `pass`, `fail`, `temperror`; nothing is said of a mail without ARC fields. What a trusted
forwarder saw pass outweighs our own failure of the same method (`overruled`).
"""

from __future__ import annotations

from dataclasses import replace

from services.common.mail.reply import OK
from services.policy.arc.testimony import witnesses
from services.policy.checks.check import (
    Check,
    Finding,
    Means,
    Standing,
    clear,
    dns_evidence,
    evidence,
)
from services.policy.subject import Mail

MAX_KEYS_TOLD = 10
"""Records of keys that are evidence. A chain of fifty would fill pages."""

METHODS = {"spf_mismatch": "spf", "dkim_invalid": "dkim", "dmarc_fail": "dmarc"}
"""The checks that a trusted forwarder's word can outweigh."""


async def find(mail: Mail, means: Means) -> Finding:
    """Tell what became of the chain, and what its trusted sealers saw."""
    result = mail.arc
    facts = [evidence("arc.sealers", ", ".join(result.sealers) or "none")]
    facts += map(dns_evidence, result.keys[:MAX_KEYS_TOLD])
    seen = witnesses(result, means.policy.arc.trusted_sealers)
    facts += [evidence("arc.trusted", f"{who} saw {method}=pass") for method, who in seen.items()]
    if result.result == "pass":
        facts.append(evidence("arc.oldest_pass", result.oldest_pass))
        return clear("pass", "The chain of forwarders is whole.", *facts)
    return clear(result.result, f"The chain of forwarders does not hold: {result.reason}.", *facts)


def overruled(check: str, finding: Finding, seen: dict[str, str]) -> Finding:
    """A finding after what trusted sealers saw has been heard."""
    who = seen.get(METHODS.get(check, ""))
    if who is None or finding.standing not in (Standing.OBJECTS, Standing.UNKNOWN):
        return finding
    said = f"{finding.explanation} But {who}, a trusted forwarder, saw it pass."
    facts = (*finding.evidence, evidence("arc.overruled_by", who))
    return replace(finding, standing=Standing.CLEAR, explanation=said, evidence=facts, action=None)


def _applies(mail: Mail, means: Means) -> bool:
    return mail.arc.result != "none"


CHECK = Check(name="arc", find=find, refusal=OK, applies=_applies)
