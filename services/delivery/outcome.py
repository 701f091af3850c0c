"""What a reply of a next hop means for a mail: RFC 5321 §4.2.1, RFC 3463 §2.

Unknown is temporary: a mail is given up only over a 5xx that somebody really said.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.common.mail.reply import Reply


class Outcome(StrEnum):
    """How an attempt ended for a recipient."""

    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


def outcome_of(reply: Reply) -> Outcome:
    """2xx is delivered, 5xx is permanent, all else (a 3xx where none belongs) is temporary."""
    if reply.is_success:
        return Outcome.DELIVERED
    return Outcome.PERMANENT if reply.is_permanent else Outcome.TEMPORARY


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended for one recipient."""

    outcome: Outcome
    reply: Reply
    """What the next hop said, or our own words."""
    next_hop: str = ""
    """Who said it, name and address; empty for our own words."""
    reports_handed_on: bool = False
    """Delivered, and the next hop knows DSN: telling the sender of success is its business now."""
    of_recipient: bool = False
    """The next hop said it of this recipient, and of no other."""


def result_of(
    reply: Reply,
    next_hop: str = "",
    *,
    reports_handed_on: bool = False,
    of_recipient: bool = False,
) -> Result:
    """The result that a reply is."""
    return Result(outcome_of(reply), reply, next_hop, reports_handed_on, of_recipient)
