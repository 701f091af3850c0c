"""How commands fail: one line for people, an exit code for scripts.

    0  done
    1  the operation failed
    2  wrong arguments, or a configuration that cannot be used
    3  the service does not answer
    4  there is no such thing
    5  no permission: a token is missing or has too small a role

`gatepost check` answers with 0, 10, 11 or 12 for accept, spam, defer and refuse; `gatepost dns
--check` with 10 when a record is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes."""

    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    PERMISSION = 5


class CliError(Exception):
    """A command cannot go on. The lines say what, where and what is allowed."""

    def __init__(self, lines: str | Sequence[str], exit_code: Exit = Exit.FAILED) -> None:
        self.lines = (lines,) if isinstance(lines, str) else tuple(lines)
        self.exit_code = exit_code
        super().__init__("\n".join(self.lines))
