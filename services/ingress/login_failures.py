"""What failed logins cost (pure): how late the next answer comes, and when an address is shut out.

Failures are counted per client (an address, an IPv6 /64 network) and per account. A client with too
many is banned for a while; an account never is, since anybody could then lock anybody out: guesses
at it are only answered later and later. A count is forgotten a day after the last failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

FORGET_S: Final = 24 * 3600.0
FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 8.0
"""A person waits that long, once; 10,000 guesses at one account take a day."""

_FREE_ACCOUNT_FAILURES: Final = 3
"""So many typing mistakes at an account cost nobody else anything."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed logins of one client or account, and when the last one was (seconds since 1970)."""

    count: int = 0
    last: float = 0.0

    def at(self, now: float) -> Failures:
        """What of it still counts."""
        return self if now - self.last < FORGET_S else Failures()

    def another(self, now: float) -> Failures:
        """One more."""
        return Failures(self.at(now).count + 1, now)

    def encoded(self) -> bytes:
        """As it is stored."""
        return json.dumps({"count": self.count, "last": round(self.last, 3)}).encode()


def decoded(stored: bytes) -> Failures:
    """What `encoded` gave; nothing for anything else."""
    try:
        values = json.loads(stored)
        return Failures(int(values["count"]), float(values["last"]))
    except (ValueError, TypeError, KeyError):
        return Failures()


def is_banned(client: Failures, now: float, *, limit: int, ban_s: float) -> bool:
    """Whether a client may not log in at all just now. Every `limit` failures cost a ban."""
    current = client.at(now)
    return current.count >= limit and now - current.last < ban_s


def delay_s(client: Failures, account: Failures) -> float:
    """How long the answer to a failure is held back."""
    steps = max(client.count, account.count - _FREE_ACCOUNT_FAILURES, 1)
    return min(FIRST_DELAY_S * (1 << min(steps - 1, 10)), MAX_DELAY_S)
