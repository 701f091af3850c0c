"""deny: is the client or the sender on `policy.deny`? Results: `listed`, `none`."""

from __future__ import annotations

from services.common.mail.reply import Reply
from services.policy.action import Action
from services.policy.checks.check import Check, Finding, Means, clear, evidence, objects
from services.policy.subject import Envelope


async def find(envelope: Envelope, means: Means) -> Finding:
    """Look the client and the sender up in the list."""
    entry = means.deny.find(envelope)
    if not entry:
        return clear("none", "Neither client nor sender is on the list.")
    fact = evidence("deny.entry", entry)
    return objects("listed", f"policy.deny has {entry}.", fact)


def _applies(envelope: Envelope, means: Means) -> bool:
    return bool(means.deny)


CHECK = Check(
    name="deny",
    find=find,
    refusal=Reply(550, "5.7.1", "Mail from you is not taken here"),
    applies=_applies,
    fixed_action=Action.REFUSE,
)
