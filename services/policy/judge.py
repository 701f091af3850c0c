"""Runs checks side by side, within one deadline, and applies the configured actions.

A check that fails or does not end in time is a `temperror`, whatever went wrong: a fault of ours
never refuses mail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from time import perf_counter
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Histogram

from services.common.dns import Answer, RecordType, Resolver
from services.common.log import ERROR, event
from services.policy.action import Action
from services.policy.checks import arc
from services.policy.checks.check import Check, Finding, Means, Standing, unknown
from services.policy.verdict import ActionTable, Result, Verdict

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
    warm = _warm(means)
    found = [_run_warm(check, subject, warm) for check in checks]
    if all(found):
        return [known for known in found if known]
    left = await _wait_for_turn(means, seconds)
    if left <= 0:
        return [known or _too_late(seconds) for known in found]
    tasks = {
        number: asyncio.create_task(_run(checks[number], subject, means))
        for number, known in enumerate(found)
        if known is None
    }
    if tasks:
        try:
            await asyncio.wait(tasks.values(), timeout=left)
        finally:
            for task in tasks.values():
                task.cancel()
    for number, task in tasks.items():
        done = task.done() and not task.cancelled()
        found[number] = task.result() if done else _too_late(seconds)
    return [known for known in found if known is not None]


async def _wait_for_turn(means: Means, seconds: float) -> float:
    """Let those go first that have all they need, or have begun. Returns the seconds left."""
    began = perf_counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await means.turns.begin()
    return seconds - (perf_counter() - began)


class _Cold(Exception):
    """A check needs an answer that is not there yet."""


class _WarmResolver:
    """A resolver that knows what is known and asks nobody."""

    def __init__(self, resolver: Resolver) -> None:
        self.cached = resolver.cached

    def query(self, name: str, rdtype: RecordType) -> Coroutine[Any, Any, Answer]:
        """See `Resolver.query`. Only what is not known is asked for.

        Raises where it is called and not where it is awaited: what is to be asked side by side has
        no tasks yet, which would outlive the trial and fail where nobody looks.
        """
        raise _Cold


@lru_cache(maxsize=8)
def _warm(means: Means) -> Means:
    return replace(means, resolver=_WarmResolver(means.resolver))


def _run_warm(check: Check[S], subject: S, means: Means) -> Found | None:
    """The finding of a check that has all it needs, without a task; None for any other.

    With warm DNS this is every check of nearly every mail, and tasks cost more than the checks.
    """
    if not check.only_dns:
        return None
    started = perf_counter()
    work = check.find(subject, means)
    try:
        work.send(None)
    except StopIteration as done:
        finding: Finding = done.value
        return finding, perf_counter() - started
    except Exception:  # noqa: BLE001 - it is run again, and what it raises then is told
        return None
    work.close()
    return None


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


@dataclass(frozen=True, slots=True)
class Findings(Generic[S]):
    """What some checks found, before any configuration is applied to it."""

    checks: Sequence[Check[S]]
    found: Sequence[Found]

    def results(self, table: ActionTable) -> list[Result]:
        """What the configuration makes of the findings."""
        return [
            table.judged(finding, check, elapsed_s=elapsed)
            for check, (finding, elapsed) in zip(self.checks, self.found, strict=True)
        ]


def overruled(findings: Findings[S], seen: dict[str, str]) -> Findings[S]:
    """The findings after what trusted forwarders saw has been heard."""
    if not seen:
        return findings
    heard = [
        (arc.overruled(check.name, finding, seen), elapsed)
        for check, (finding, elapsed) in zip(findings.checks, findings.found, strict=True)
    ]
    return Findings(findings.checks, heard)


def that_matter(
    checks: Sequence[Check[S]], subject: S, means: Means, tables: Sequence[ActionTable]
) -> list[Check[S]]:
    """The checks to run: those that have something to say, and those that burden others only where
    something depends on them."""
    return [
        check
        for check in checks
        if (check.applies is None or check.applies(subject, means))
        and (not check.only_if_it_matters or _matters(check.name, tables))
    ]


def _matters(check: str, tables: Sequence[ActionTable]) -> bool:
    return any(table.action(check, Standing.OBJECTS) is not Action.ACCEPT for table in tables)


def count_results(results: Sequence[Result]) -> None:
    """Put results into the metrics; never called for a dry run."""
    for result in results:
        _checks(result.check, result.result).inc()
        _seconds(result.check).observe(result.elapsed_s)
        if result.objects:
            _actions(result.check, result.action).inc()


def count_verdict(stage: str, verdict: Verdict) -> None:
    """Put a verdict into the metrics; never called for a dry run."""
    _verdicts(stage, verdict.action).inc()


# `labels` takes as long as a check; there are few combinations.
@cache
def _checks(check: str, result: str) -> Counter:
    return CHECKS.labels(check, result)


@cache
def _actions(check: str, action: Action) -> Counter:
    return ACTIONS.labels(check, action.name.lower())


@cache
def _verdicts(stage: str, action: Action) -> Counter:
    return VERDICTS.labels(stage, action.name.lower())


@cache
def _seconds(check: str) -> Histogram:
    return SECONDS.labels(check)
