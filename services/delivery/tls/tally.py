"""The sessions of a time, by the domains that are told of them (RFC 8460 §4.4).

Bounded: strangers choose which domains we write to. What does not fit is counted without its
circumstances, or not at all where there are too many domains or policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from services.delivery.tls.report import PolicyKind, Terms, TlsReport, TlsResult

MAX_DOMAINS: Final = 10_000
MAX_POLICIES: Final = 20
"""Of a domain. It may change one during the day, and each exchange may have its own."""

MAX_CIRCUMSTANCES: Final = 50
"""Of a policy."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What failed, where and how."""

    result: TlsResult
    host: str = ""
    address: str = ""
    detail: str = ""


@dataclass(slots=True)
class Sessions:
    """How many sessions there were under a policy."""

    successes: int = 0
    failures: dict[Circumstances, int] = field(default_factory=dict)

    def add(self, report: TlsReport) -> None:
        """Count one."""
        if report.result is TlsResult.SUCCESS:
            self.successes += 1
            return
        found = Circumstances(report.result, report.name, report.address, report.detail)
        if found not in self.failures and len(self.failures) >= MAX_CIRCUMSTANCES:
            found = Circumstances(report.result)
        self.failures[found] = self.failures.get(found, 0) + 1


Policies: TypeAlias = dict[tuple[PolicyKind, Terms], Sessions]


class Tally:
    """What is to be told of the time since a moment."""

    def __init__(self, since: datetime) -> None:
        self.since = since
        self.domains: dict[str, Policies] = {}
        """The policies that were met on the way to each domain, and the sessions under them."""

    def add(self, report: TlsReport) -> None:
        """Count a session."""
        if report.terms is None:
            return
        domain = report.terms.recipients
        if domain not in self.domains and len(self.domains) >= MAX_DOMAINS:
            return
        policies = self.domains.setdefault(domain, {})
        key = (report.policy, report.terms)
        if key not in policies and len(policies) >= MAX_POLICIES:
            return
        policies.setdefault(key, Sessions()).add(report)
