"""How patient the resolver is and how much it keeps, with the rule for how long an answer is kept.

RFC 2308 §5 (negative answers), RFC 9520 §3.2 (failures are kept for a second at least and five
minutes at most: ours for a few seconds).
"""

from __future__ import annotations

from dataclasses import dataclass

from services.common.dns.answer import Answer, Status

MAX_TEMPORARY_TTL_SECONDS = 10.0  # a failure that has passed must not defer mail for longer


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsOptions:
    """Settings of a `DnsResolver`. Raises ValueError for values that cannot work."""

    servers: tuple[str, ...] = ()
    """Recursive servers in the order of choice: address, address:port or [address]:port. None:
    /etc/resolv.conf."""
    attempt_timeout: float = 2.0
    """Seconds to wait for one server, once."""
    deadline: float = 5.0
    """Seconds that a lookup may take in all: waiting for a slot, every server, every alias."""
    max_concurrent: int = 256
    """Lookups put to servers at a time. Each holds a socket."""
    max_pending: int = 4096
    """Lookups under way or waiting for a slot; further ones are TEMPORARY at once."""
    cache_entries: int = 10_000
    """Answers kept, at 2 KiB each on average. 0: nothing is kept."""
    min_ttl: float = 5.0
    """Seconds that any definite answer is kept at least."""
    max_ttl: float = 3600.0
    """Seconds that records are kept at most."""
    max_negative_ttl: float = 900.0
    """Seconds that "no such name" and "no such record" are kept at most."""
    temporary_ttl: float = 3.0
    """Seconds that a failure is kept, so that one broken domain is not asked about by every
    mail."""

    def __post_init__(self) -> None:
        _require(0 < self.attempt_timeout <= self.deadline, "0 < attempt_timeout <= deadline")
        _require(0 < self.max_concurrent <= self.max_pending, "0 < max_concurrent <= max_pending")
        _require(self.cache_entries >= 0, "0 <= cache_entries")
        _require(0 <= self.min_ttl <= self.max_negative_ttl, "0 <= min_ttl <= max_negative_ttl")
        _require(self.min_ttl <= self.max_ttl, "min_ttl <= max_ttl")
        _require(
            0 <= self.temporary_ttl <= MAX_TEMPORARY_TTL_SECONDS,
            f"0 <= temporary_ttl <= {MAX_TEMPORARY_TTL_SECONDS:g}",
        )

    def keep_seconds(self, answer: Answer) -> float:
        """How long this answer may be given again without asking."""
        if not answer.status.definite:
            return self.temporary_ttl
        longest = self.max_ttl if answer.status is Status.OK else self.max_negative_ttl
        return min(max(float(answer.ttl), self.min_ttl), longest)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"DNS settings must satisfy {rule}")
