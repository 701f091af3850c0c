"""The report of a run: a table in Markdown, and a picture of the mails a second.

Named by the day, so that a run replaces an older one of the same day and kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from bench import machine, picture
from bench.comparison import Figures, Table
from bench.contender import Name
from bench.latency import Latency
from bench.outbound import Outbound
from bench.parts import PARTS

_MEGABYTE: Final = 2**20
_CONDITIONS: Final = Path(__file__).with_name("conditions.md")


@dataclass(slots=True)
class Report:
    """What has been measured so far."""

    short: bool
    when: datetime
    only: tuple[str, ...] = ()
    """The parts that were asked for; all if none."""
    precedence: bool = False
    """Over what else the machine did."""
    tables: list[Table] = field(default_factory=list)
    latencies: dict[Name, Latency] = field(default_factory=dict)
    latency_mails: int = 0
    outbound: list[Outbound] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """The day, whether it was a short run, and the parts if not all were wanted."""
        words = [f"{self.when:%Y-%m-%d}", *(["short"] if self.short else []), *self.only]
        return "-".join(words)

    @property
    def command(self) -> str:
        """What to type for such a report."""
        words = ["--short"] if self.short else []
        words += ["--precedence"] if self.precedence else []
        words += [f"--only {name}" for name in self.only]
        return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def write(report: Report, folder: Path) -> list[Path]:
    """The files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    text, drawing = folder / f"{report.title}.md", folder / f"{report.title}.svg"
    link = f"![Mails a second]({drawing.name})\n\n" if report.tables else ""
    text.write_text(markdown(report, link), encoding="utf-8")
    if not report.tables:
        return [text]
    drawing.write_text(picture.draw(report.tables), encoding="utf-8")
    return [text, drawing]


def markdown(report: Report, link: str = "") -> str:
    """The whole report."""
    parts = [f"# Gatepost beside others, {report.when:%Y-%m-%d}\n\n`{report.command}`"]
    parts.append(f", {report.seconds / 60:.0f} minutes.\n\n{link}")
    parts += [_case(table) for table in report.tables]
    if report.latencies:
        parts.append(_latencies(report))
    if report.outbound:
        parts.append(_outbound(report.outbound))
    for name, output in report.parts.items():
        if output:
            parts.append(f"## {PARTS[name].title}\n\n```\n{output}\n```\n\n")
    parts.append("## Machine and versions\n\n")
    parts += [f"- {line}\n" for line in machine.description()]
    if report.tables:
        parts.append(f"\n## Conditions\n\n{_CONDITIONS.read_text('utf-8')}")
    return "".join(parts)


def _case(table: Table) -> str:
    lines = [
        f"## {table.case.title}\n",
        "| | accepted/s | delivered/s | Gatepost delivers | CPU ms a mail | memory MB |",
        "|---|--:|--:|--:|--:|--:|",
        *map(_row, table.rows),
        *filter(None, map(_members, table.rows)),
        (
            f"\n{table.rounds} rounds of {table.case.count} mails;"
            f" {table.others:.0%} of the machine was used by others meanwhile."
        ),
    ]
    return "\n".join(lines) + "\n\n"


def _row(row: Figures) -> str:
    ratio = _times(row.contender, row.ratio)
    return (
        f"| {row.contender} | {row.accepted_per_second:.0f} | {row.delivered_per_second:.0f} |"
        f" {ratio} | {row.cpu_ms:.2f} | {row.memory / _MEGABYTE:.0f} |"
    )


def _members(row: Figures) -> str:
    if not row.member_cpu_ms:
        return ""
    told = ", ".join(f"{name} {cpu_ms:.2f}" for name, cpu_ms in row.member_cpu_ms.items())
    return f"\n{row.contender}'s CPU by process: {told}."


def _times(contender: str, ratio: float) -> str:
    return "" if contender == Name.GATEPOST else f"{ratio:.2f} ×"


def _latencies(report: Report) -> str:
    rows = [
        f"| {name} | {found.p50:.1f} | {found.p95:.1f} | {found.p99:.1f} |"
        for name, found in report.latencies.items()
    ]
    lines = [
        "## From the final dot to 250, in ms\n",
        "| | p50 | p95 | p99 |",
        "|---|--:|--:|--:|",
        *rows,
        f"\n{report.latency_mails} mails of 4 KB to each, one at a time.",
    ]
    return "\n".join(lines) + "\n\n"


def _outbound(found: list[Outbound]) -> str:
    rows = [
        f"| {each.contender} | {each.accepted_per_second:.0f} | {each.delivered_per_second:.0f} |"
        f" {_times(each.contender, each.ratio)} | {each.cpu_ms:.2f} |"
        for each in found
    ]
    lines = [
        "## Submission, signed on the way out\n",
        "| | accepted/s | delivered/s | Gatepost delivers | CPU ms a mail |",
        "|---|--:|--:|--:|--:|",
        *rows,
        "\n4 KB over TLS, sessions reused; one RSA signature of 2048 bits for each mail.",
    ]
    return "\n".join(lines) + "\n\n"
