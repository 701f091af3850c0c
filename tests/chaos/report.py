"""The report of a run: one row for each fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from tests.chaos.world import Row

HEADINGS = (
    "fault",
    "kills",
    "accepted",
    "unknown",
    "delivered",
    "notified",
    "twice",
    "lost",
    "noticed",
)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, and below it whatever must not be."""
    cells = [HEADINGS, *(tuple(map(str, astuple(row)[:-1])) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        lines += [f"{row.fault}: {problem}" for problem in row.problems[:20]]
        if len(row.problems) > 20:
            lines.append(f"{row.fault}: and {len(row.problems) - 20} more")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = (
        cell.rjust(width) if cell.isdigit() else cell.ljust(width)
        for cell, width in zip(cells, widths, strict=True)
    )
    return "| " + " | ".join(texts) + " |"
