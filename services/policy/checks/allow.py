"""allow: is the client or the sender on `policy.allow`?

Results: `listed`, which vouches for the mail; `unconfirmed` when only the reverse-path is listed
and SPF does not pass, since anybody can claim an address; `none`.
"""

from __future__ import annotations

from services.common.mail.reply import OK
from services.policy.checks import spf_mismatch
from services.policy.checks.check import Check, Finding, Means, Standing, clear, evidence
from services.policy.subject import Envelope

LISTED = "listed"


async def find(envelope: Envelope, means: Means) -> Finding:
    """Look the client and the sender up in the list."""
    network = means.allow.network_of(envelope.session.address)
    if network:
        fact = evidence("allow.entry", network)
        return Finding(LISTED, Standing.VOUCHES, f"policy.allow has {network}.", (fact,))
    entry = means.allow.entry_of(envelope.sender)
    if not entry:
        return clear("none", "Neither client nor sender is on the list.")
    spf = await spf_mismatch.find(envelope, means)
    facts = (evidence("allow.entry", entry), evidence("allow.spf", spf.result))
    if spf.result != "pass":
        why = f"policy.allow has {entry}, but SPF does not confirm the sender."
        return clear("unconfirmed", why, *facts)
    why = f"policy.allow has {entry}, and SPF confirms the sender."
    return Finding(LISTED, Standing.VOUCHES, why, facts)


def _applies(envelope: Envelope, means: Means) -> bool:
    return bool(means.allow)


CHECK = Check(
    name="allow",
    find=find,
    refusal=OK,  # it never objects
    applies=_applies,
    vouching_result=LISTED,
)
