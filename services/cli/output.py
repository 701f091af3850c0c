"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_COLUMNS: Final = 500

stderr_console = Console(stderr=True, highlight=False)
console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def plain(message: Message) -> dict[str, Any]:
    """A protobuf message as JSON values, fields named as in the proto, none left out."""
    values: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return values


def print_json(value: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_verdict(*, problems: Sequence[str], notes: Sequence[str]) -> None:
    """What a command that looks for mistakes found, as JSON."""
    print_json({"valid": not problems, "problems": list(problems), "notes": list(notes)})


def tell(text: str, answer: Message, *, as_json: bool) -> None:
    """What a command did: a sentence for people, or the same as JSON."""
    if as_json:
        print_json(plain(answer))
    else:
        print(printable(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table; what came from outside cannot use markup or control the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"ID", "STATE", "NEXT", "AGE"})
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    console.print(table)


def printable(text: str) -> str:
    """Text from outside, safe for a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def when(timestamp: Timestamp) -> str:
    """A time for people: local, to the second."""
    return timestamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def since(timestamp: Timestamp, *, now: datetime) -> str:
    """How long ago, for people."""
    return span(now - timestamp.ToDatetime(tzinfo=UTC))


def until(timestamp: Timestamp, *, now: datetime) -> str:
    """How long until then, for people."""
    left = timestamp.ToDatetime(tzinfo=UTC) - now
    return f"in {span(left)}" if left > timedelta(0) else "now"


def span(length: timedelta) -> str:
    """A length of time in its two largest units."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size}{unit}{f' {rest}{smaller}' if rest else ''}"
    return f"{seconds}s"


def octets(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
