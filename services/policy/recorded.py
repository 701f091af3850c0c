"""Results that come back: from an ingress that asked at RCPT, or from the record of a verdict."""

from __future__ import annotations

from typing import Any

from gatepost.policy.v1 import verdict_pb2
from services.common.mail.printable import one_line
from services.policy.checks.check import (
    MAX_EVIDENCE_OCTETS,
    TEMPERROR,
    Check,
    Evidence,
    Finding,
    Standing,
)

MAX_EVIDENCE = 500
_MAX_NAME_OCTETS = 100
_MAX_RESULT_OCTETS = 30


def finding_of(result: verdict_pb2.CheckResult, check: Check[Any] | None) -> Finding:
    """What a check had found, without what a configuration made of it."""
    facts = tuple(
        Evidence(
            one_line(fact.name, limit=_MAX_NAME_OCTETS),
            one_line(fact.value, limit=MAX_EVIDENCE_OCTETS),
        )
        for fact in result.evidence[:MAX_EVIDENCE]
    )
    return Finding(
        one_line(result.result, limit=_MAX_RESULT_OCTETS),
        _standing(result, check),
        one_line(result.explanation, limit=MAX_EVIDENCE_OCTETS),
        facts,
    )


def _standing(result: verdict_pb2.CheckResult, check: Check[Any] | None) -> Standing:
    if result.result == TEMPERROR:
        return Standing.UNKNOWN
    if check is not None and check.vouching_result and result.result == check.vouching_result:
        return Standing.VOUCHES
    return Standing.OBJECTS if result.objects else Standing.CLEAR
