"""dkim_invalid: is there a DKIM signature, and is none of them valid?

RFC 6376 §6.1 and RFC 8301; results in the words of RFC 8601 §2.7.1: `pass` when one signature is
valid, `none` without any, `temperror` when none is valid and a key cannot be looked up just now,
otherwise the result of the topmost one (`fail`, `policy`, `neutral`, `permerror`). A failure under
a key that is marked as a test counts as no signature (RFC 6376 §3.6.1).
"""

from __future__ import annotations

from services.common.mail.reply import Reply
from services.policy.checks.check import (
    TEMPERROR,
    Check,
    Evidence,
    Finding,
    Means,
    clear,
    dns_evidence,
    evidence,
    objects,
    unknown,
)
from services.policy.dkim.verification import FIELD, MAX_SIGNATURES, SignatureResult
from services.policy.subject import Mail


async def find(mail: Mail, means: Means) -> Finding:
    """Judge the results of all signatures."""
    results = mail.signatures
    facts = [fact for result in results for fact in _facts(result)]
    more = mail.header.count(FIELD) - len(results)
    if more > 0:
        facts.append(evidence("dkim.ignored", f"{more} signatures beyond {MAX_SIGNATURES}"))
    if not results:
        return clear("none", "There is no DKIM signature.", *facts)
    valid = next((result for result in results if result.passed), None)
    if valid is not None:
        return clear("pass", f"The signature of {valid.domain} is valid.", *facts)
    if any(result.result == TEMPERROR for result in results):
        return unknown("A key cannot be looked up just now.", *facts)
    counting = [result for result in results if not result.testing]
    if not counting:
        return clear("none", "The signatures are tests, and none is valid.", *facts)
    first = counting[0]
    who = first.domain or "an unknown domain"
    return objects(first.result, f"The signature of {who} is not valid: {first.reason}.", *facts)


def _facts(result: SignatureResult) -> list[Evidence]:
    label = result.label
    told = f"d={label.domain} s={label.selector} a={label.algorithm}: {result.result}"
    facts = [evidence("dkim.signature", f"{told} ({result.reason})" if result.reason else told)]
    if result.key is not None:
        facts.append(dns_evidence(result.key))
    if result.bits:
        facts.append(evidence("dkim.key_bits", result.bits))
    return facts


CHECK = Check(
    name="dkim_invalid",
    find=find,
    # RFC 7372 §3.1
    refusal=Reply(550, "5.7.20", "No DKIM signature of the mail is valid"),
    deferral=Reply(451, "4.7.5", "A DKIM key cannot be looked up just now"),
)
