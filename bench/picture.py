"""The bars of a report as SVG: mails delivered in a second, a group of bars for each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.comparison import Table
from bench.contender import Name

_WIDTH: Final = 760
_LABEL: Final = 250
_BAR: Final = 18
_GAP: Final = 6
_HEAD: Final = 34
_NUMBER: Final = 60
_COLOURS: Final = {
    Name.GATEPOST: "#2563eb",
    Name.POSTFIX: "#94a3b8",
    Name.POSTFIX_SPF_DKIM: "#64748b",
    Name.POSTFIX_RSPAMD: "#475569",
}


def draw(tables: Sequence[Table]) -> str:
    """The whole picture."""
    most = max(row.delivered_per_second for table in tables for row in table.rows)
    parts: list[str] = []
    y = 30
    for table in tables:
        parts.append(_text(0, y + 14, table.case.title, weight="bold"))
        y += _HEAD - _GAP
        for row in table.rows:
            width = (_WIDTH - _LABEL - _NUMBER) * row.delivered_per_second / most
            parts.append(_text(_LABEL - 8, y + 13, row.contender, anchor="end"))
            parts.append(
                f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}"'
                f' fill="{_COLOURS[row.contender]}"/>'
            )
            number = f"{row.delivered_per_second:.0f}/s"
            parts.append(_text(_LABEL + width + 6, y + 13, number))
            y += _BAR + _GAP
        y += _GAP
    head = _text(0, 16, "Mails delivered in a second")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}"'
        f' height="{y}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join([head, *parts])
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
        f' fill="#0f172a">{escape(text)}</text>'
    )
