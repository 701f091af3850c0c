"""Who has the most mail waiting, for metrics: a list of the first few destinations.

A label for every destination would be as many time series as there are domains; the first
`LISTED` are what an operator asks for, and all others are one number.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from prometheus_client import Gauge

LISTED: Final = 20
OTHERS: Final = "(others)"
"""No domain: those have no parentheses."""

WAITING = Gauge(
    "gatepost_delivery_waiting_by_destination_records",
    "Deferred records of the destinations that have the most, as of the last round of the sweeper;"
    " told by the replica that sweeps.",
    ["destination"],
)


def tell(records: Counter[str]) -> None:
    """Put the destinations with the most records, and the rest in one, into the metric."""
    first = dict(records.most_common(LISTED))
    others = records.total() - sum(first.values())
    WAITING.clear()
    for destination, count in first.items():
        WAITING.labels(destination).set(count)
    if others:
        WAITING.labels(OTHERS).set(others)
