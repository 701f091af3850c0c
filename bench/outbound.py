"""Submitted mail that is signed on its way out: Gatepost against Postfix with opendkim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outbound:
    """The medians of one contender."""

    contender: str
    accepted_per_second: float
    delivered_per_second: float
    cpu_ms: float
