"""The contenders one after the other, again and again, and what that comes to.

Each round measures every contender once, in an order that rotates, so that what else the machine
does falls on all of them. A ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.contender import Contender, Name
from bench.latency import Latency, measure, quantiles
from bench.line_up import LineUp
from bench.throughput import Case, Run, run

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """The medians of one contender in one case."""

    contender: Name
    accepted_per_second: float
    delivered_per_second: float
    ratio: float
    """Of delivered mails, ours to this one's."""
    cpu_ms: float
    member_cpu_ms: dict[str, float]
    memory: int


@dataclass(frozen=True, slots=True)
class Table:
    """One case."""

    case: Case
    rounds: int
    rows: tuple[Figures, ...]
    others: float
    """The part of the machine that worked for somebody else: the median of all runs."""


def throughput(
    line_up: LineUp, cases: Sequence[Case], rounds: int, *, seconds: float, say: Say
) -> list[Table]:
    """Every contender in every case; fewer rounds if they take longer than `seconds`."""
    end = time.monotonic() + seconds
    runs: dict[str, list[dict[Name, Run]]] = {case.title: [] for case in cases}
    warm = max(cases[0].count // 4, 20)
    for contender in line_up.contenders:
        run(contender, line_up.sink, cases[0], line_up.mail(cases[0].octets), count=warm)
    for number in range(rounds):
        for case in cases:
            mail, found = line_up.mail(case.octets), dict[Name, Run]()
            for contender in _rotated(line_up.contenders, number):
                found[contender.name] = run(contender, line_up.sink, case, mail)
            runs[case.title].append(found)
            said = ", ".join(f"{n} {r.delivered_per_second:.0f}/s" for n, r in found.items())
            say(f"round {number + 1} of {rounds}, {case.title}: {said}")
        if time.monotonic() > end and number + 1 < rounds:
            say(f"enough after {number + 1} rounds: this machine has much else to do")
            break
    return [table_of(case, runs[case.title]) for case in cases]


def latencies(line_up: LineUp, rounds: int, count: int) -> dict[Name, Latency]:
    """Every contender with `rounds` times `count` mails."""
    content = line_up.mail(4096).read_bytes()
    found: dict[Name, list[float]] = {contender.name: [] for contender in line_up.contenders}
    for number in range(rounds):
        for contender in _rotated(line_up.contenders, number):
            found[contender.name] += measure(contender, content, count)
    return {name: quantiles(seconds) for name, seconds in found.items()}


def _rotated(items: Sequence[Contender], number: int) -> Sequence[Contender]:
    at = number % len(items)
    return [*items[at:], *items[:at]]


def table_of(case: Case, rounds: Sequence[Mapping[Name, Run]]) -> Table:
    """The medians of some rounds."""

    def median(name: Name, of: Callable[[Run], float]) -> float:
        return statistics.median(of(found[name]) for found in rounds)

    rows = tuple(
        Figures(
            contender=name,
            accepted_per_second=median(name, lambda run: run.accepted_per_second),
            delivered_per_second=median(name, lambda run: run.delivered_per_second),
            ratio=statistics.median(
                found[Name.GATEPOST].delivered_per_second / found[name].delivered_per_second
                for found in rounds
            ),
            cpu_ms=median(name, lambda run: run.cpu_ms),
            member_cpu_ms={
                member: statistics.median(found[name].member_cpu_ms[member] for found in rounds)
                for member in rounds[0][name].member_cpu_ms
            },
            memory=int(median(name, lambda run: run.memory)),
        )
        for name in Name
        if name in rounds[0]
    )
    others = statistics.median(run.others for found in rounds for run in found.values())
    return Table(case, len(rounds), rows, others)
