"""Runs checks side by side, within one deadline, and applies the configured actions.

A check that fails or does not end in time is a `temperror`, whatever went wrong: a fault of ours
never refuses mail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import TypeVar

from prometheus_client import Counter, Histogram

from services.common.log import ERROR, event
from services.policy.checks.check import Check, Finding, Means, unknown
from services.policy.verdict import Action, ActionTable, Result, Verdict, judged

CHECKS = Counter(
    "gatepost_policy_checks_total",
    "Checks that ran on real mail, by result.",
    ["check", "result"],  # names of the table of checks; results in the words of their RFCs
)
ACTIONS = Counter(
    "gatepost_policy_actions_total",
    "Results that a check objected with, by the configured action.",
    ["check", "action"],  # accept, spam, defer, refuse
)
VERDICTS = Counter(
    "gatepost_policy_verdicts_total",
    "Verdicts on real mail.",
    ["stage", "action"],  # envelope, recipient, message; accept, spam, defer, refuse
)
SECONDS = Histogram(
    "gatepost_policy_check_seconds",
    "Time that a check of real mail took.",
    ["check"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)

_log = logging.getLogger(__name__)

S = TypeVar("S")
Found = tuple[Finding, float]
"""A finding and the seconds that it took."""


async def run_checks(
    checks: Sequence[Check[S]], subject: S, means: Means, *, seconds: float
) -> list[Found]:
    """What each check finds, in their order, within so many seconds."""
    tasks = [asyncio.create_task(_run(check, subject, means)) for check in checks]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, timeout=max(seconds, 0.0))
    finally:
        for task in tasks:
            task.cancel()
    return [
        task.result() if task.done() and not task.cancelled() else _too_late(seconds)
        for task in tasks
    ]


async def _run(check: Check[S], subject: S, means: Means) -> Found:
    started = perf_counter()
    try:
        finding = await check.find(subject, means)
    except Exception as error:  # noqa: BLE001 - a fault in one check must not cost the verdict
        event(_log, ERROR, "check failed", check=check.name, exc_info=True)
        finding = unknown(f"The check failed: internal error ({type(error).__name__}).")
    return finding, perf_counter() - started


def _too_late(seconds: float) -> Found:
    return unknown(f"The check did not end within {seconds:.1f} s."), seconds


def apply(checks: Sequence[Check[S]], found: Sequence[Found], table: ActionTable) -> list[Result]:
    """What the configuration makes of the findings."""
    return [
        judged(
            finding,
            check=check.name,
            table=table,
            refusal=check.refusal_for(finding.result),
            deferral=check.deferral,
            elapsed_s=elapsed,
        )
        for check, (finding, elapsed) in zip(checks, found, strict=True)
    ]


def count_results(results: Sequence[Result]) -> None:
    """Put results into the metrics; never called for a dry run."""
    for result in results:
        CHECKS.labels(result.check, result.result).inc()
        SECONDS.labels(result.check).observe(result.elapsed_s)
        if result.objects:
            ACTIONS.labels(result.check, _WORDS[result.action]).inc()


def count_verdict(stage: str, verdict: Verdict) -> None:
    """Put a verdict into the metrics; never called for a dry run."""
    VERDICTS.labels(stage, _WORDS[verdict.action]).inc()


_WORDS = {action: action.name.lower() for action in Action}
