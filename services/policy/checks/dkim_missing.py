"""dkim_missing: is the mail without a DKIM signature?

Results: `none` when there is no signature, `pass` when there is one, whatever it is worth. One that
fails under a key that is marked as a test counts as none (RFC 6376 §3.6.1).
"""

from __future__ import annotations

from services.common.mail.reply import Reply
from services.policy.checks.check import Check, Finding, Means, clear, evidence, objects
from services.policy.dkim.verification import FIELD
from services.policy.subject import Mail


async def find(mail: Mail, means: Means) -> Finding:
    """Count the signatures."""
    count = mail.header.count(FIELD)
    fact = evidence("dkim.signatures", count)
    if count == 0:
        return objects("none", "There is no DKIM signature.", fact)
    results = mail.signatures
    if results and all(result.testing and not result.passed for result in results):
        return objects("none", "The signatures are tests, and none is valid.", fact)
    return clear("pass", "There is a DKIM signature.", fact)


CHECK = Check(
    name="dkim_missing",
    find=find,
    refusal=Reply(550, "5.7.20", "The mail has no DKIM signature"),
)
