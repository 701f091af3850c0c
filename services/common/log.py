"""Logs: one JSON object per line on stderr, through the standard library's `logging`.

Every line carries `time` (RFC 3339, UTC, milliseconds), `level`, `service`, `logger` and `msg`,
and within `with session(…):` or `with message(…):` the ids that let one mail be followed from
connection to delivery. What else an event has to say is passed as named fields: `event(log, INFO,
"delivered", destination=…)`.

Guarantees: nothing that a client, a peer or a DNS record said can end or forge a line (JSON
escapes all that is not printable ASCII, the text format escapes all that is not printable); a
value that cannot be written is written as its `repr`; one value has at most `VALUE_LIMIT_CHARS`
characters. Writing is synchronous: a log that nobody reads stops the process rather than losing
lines or filling memory.
Refuses: metadata of gRPC calls and secrets have no business here; the callers never pass them.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import TextIO

__all__ = [
    "CRITICAL",
    "DEBUG",
    "ERROR",
    "INFO",
    "WARNING",
    "LogFormat",
    "configure",
    "event",
    "message",
    "message_id",
    "session",
    "session_id",
]

# A container runtime cuts lines at 16 KiB; two long values still fit, and a traceback keeps its
# end.
VALUE_LIMIT_CHARS = 6000

# What a field may not replace; `session` and `message` may be given by hand, where one task
# serves many mails.
_RESERVED = frozenset({"time", "level", "service", "logger", "msg", "error"})

session_id: ContextVar[str] = ContextVar("session_id", default="")
message_id: ContextVar[str] = ContextVar("message_id", default="")


class LogFormat(StrEnum):
    """How lines look: `json` for machines, `text` for a person at a terminal."""

    JSON = "json"
    TEXT = "text"


def configure(
    service: str,
    *,
    level: str = "info",
    style: LogFormat = LogFormat.JSON,
    stream: TextIO | None = None,
) -> None:
    """Make this process log as `service`, on `stream` (default: stderr), at `level` and above.

    May be called again, which replaces what was set. Python's own warnings become log lines too.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter((_Json if style is LogFormat.JSON else _Text)(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # What no line tells need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """Change the level while running: `debug`, `info`, `warning`, `error`."""
    logging.getLogger().setLevel(level.upper())


def event(logger: logging.Logger, level: int, text: str, /, **fields: object) -> None:
    """Log `text` (fixed, never built from input) with named fields; nearly free below the level.

    Inside an `except` block pass `exc_info=True` to have the traceback in the field `error`.
    """
    if logger.isEnabledFor(level):
        trace = sys.exc_info() if fields.pop("exc_info", None) else None
        # Not by way of `logger.log`: looking for the caller, whom no line names, is half its cost.
        # `text` is the format with no arguments, so a percent sign in it means itself.
        record = logging.LogRecord(logger.name, level, "", 0, text, (), trace)
        record.fields = fields
        logger.handle(record)


@contextmanager
def session(name: str) -> Iterator[None]:
    """Lines logged inside, by this task and those it starts, belong to the session `name`."""
    token = session_id.set(name)
    try:
        yield
    finally:
        session_id.reset(token)


@contextmanager
def message(name: str) -> Iterator[None]:
    """Lines logged inside, by this task and those it starts, are about the message `name`."""
    token = message_id.set(name)
    try:
        yield
    finally:
        message_id.reset(token)


class _Formatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """The ids and the named fields of a record, in the order in which they are written."""
        found: dict[str, object] = {}
        if session := session_id.get():
            found["session"] = session
        if message := message_id.get():
            found["message"] = message
        extra = getattr(record, "fields", None)
        if isinstance(extra, Mapping):
            for name, value in extra.items():
                found[f"{name}_" if name in _RESERVED else str(name)] = _short(value)
        return found

    def failure(self, record: logging.LogRecord) -> str:
        """The traceback as one string, or an empty one; the end, which names the error, is kept."""
        if record.exc_info and record.exc_info[0] is not None:
            return self.formatException(record.exc_info)[-VALUE_LIMIT_CHARS:]
        return ""


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "service": self.service,
            "logger": record.name,
            "msg": _short(_text(record)),
        }
        line |= self.fields(record)
        if failure := self.failure(record):
            line["error"] = failure
        # ASCII only: a lone surrogate, U+2028 or U+0085 from a hostile name then cannot reach the
        # terminal or break a reader that splits at them.
        try:
            return _encode(line)
        except (TypeError, ValueError, RecursionError):
            return json.dumps({name: _short(_plain(value)) for name, value in line.items()})


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record.created)[11:23], f"{record.levelname:7}", f"{self.service:8}"]
        words.append(_printable(_short(_text(record))))
        words += [f"{name}={_word(value)}" for name, value in self.fields(record).items()]
        line = " ".join(words)
        # Indented, so that no line of a traceback can look like an event.
        for trace in self.failure(record).splitlines():
            line += f"\n    {_printable(trace)}"
        return line


def _time(created: float) -> str:
    second, microsecond = divmod(round(created * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microsecond // 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a library's wrong format string must not cost the event
        return f"{record.msg!r} {record.args!r} ({error})"


def _short(value: object) -> object:
    if isinstance(value, str) and len(value) > VALUE_LIMIT_CHARS:
        return value[:VALUE_LIMIT_CHARS] + "…"
    return value


def _plain(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not cost the event
        return f"<{type(value).__name__}>"


_encode = json.JSONEncoder(default=_plain).encode


def _printable(value: object) -> str:
    text = _plain(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _word(value: object) -> str:
    text = _printable(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text
