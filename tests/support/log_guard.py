"""Watches what a test logs: a WARNING that the test did not announce is a failure.

Life cycle: `start`, any number of `expect`, `finish`; `finish` fails the test if a line of level
WARNING or above was logged that no announced text is part of, or if an announced text never came.
"""

import logging

import pytest


class LogGuard(logging.Handler):
    """A handler at the root that keeps what the test must account for."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self._records: list[logging.LogRecord] = []
        self._expected: list[str] = []

    def expect(self, text: str) -> None:
        """Announce that at least one line of level WARNING or above will have `text` in it."""
        self._expected.append(text)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def start(self) -> None:
        logging.getLogger().addHandler(self)

    def finish(self) -> None:
        logging.getLogger().removeHandler(self)
        lines = [_line(record) for record in self._records]
        unexpected = [line for line in lines if not any(text in line for text in self._expected)]
        absent = [text for text in self._expected if not any(text in line for line in lines)]
        complaints = [f"logged, but not expected: {line}" for line in unexpected]
        complaints += [f"expected, but not logged: {text}" for text in absent]
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)


def _line(record: logging.LogRecord) -> str:
    line = f"{record.levelname} {record.name}: {record.getMessage()}"
    if record.exc_info and record.exc_info[1] is not None:
        line += f" ({record.exc_info[1]!r})"
    return line
