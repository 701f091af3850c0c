"""from_mismatch: is the author that people see the sender of the envelope?

RFC 5322 §3.6.2 (From), RFC 5321 §3.3 (reverse-path). The address in the header From is compared
with the reverse-path without regard to case. Results: `pass`; `fail` when they differ, or when
there are several From addresses or none; `none` for the blank reverse-path, which another check
judges.
"""

from __future__ import annotations

from services.common.mail.reply import Reply
from services.policy.checks.check import Check, Finding, Means, clear, evidence, objects
from services.policy.subject import Mail


async def find(mail: Mail, means: Means) -> Finding:
    """Compare the From field with the reverse-path."""
    envelope, authors = mail.envelope, mail.authors
    shown = ", ".join(map(str, authors.addresses)) or "none"
    facts = (
        evidence("from.addresses", shown),
        evidence("sender", f"<{envelope.sender_text}>"),
    )
    if envelope.is_null:
        return clear("none", "The reverse-path is blank; there is nothing to compare.", *facts)
    if authors.problem is not None:
        return objects("fail", f"The author cannot be told: {authors.problem}.", *facts)
    author = authors.only
    if author is None:
        return objects("fail", f"There are {len(authors.addresses)} From addresses.", *facts)
    sender = envelope.sender
    if sender is not None and sender.key == author.key:
        return clear("pass", f"From is {author}, as is the reverse-path.", *facts)
    return objects("fail", f"From is {author}, the reverse-path is another.", *facts)


CHECK = Check(
    name="from_mismatch",
    find=find,
    refusal=Reply(550, "5.7.1", "The From address is not the sender of the envelope"),
)
