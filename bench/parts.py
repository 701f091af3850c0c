"""The figures of single parts: programs beside this one, each of which prints its own.

One that fails or takes too long says so in the report, and the others go on.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from bench.processes import end

LATE: Final = "left out: the others took too long"
_SECONDS: Final = 120.0
_SHORT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """A program and its arguments."""

    module: str
    title: str
    arguments: tuple[str, ...] = ()
    short_arguments: tuple[str, ...] | None = None
    """None: it is left out of a short run."""
    seconds: float = _SECONDS
    """It is ended after these."""


_ALL: Final = (
    Part("verdicts", "Policy calls", (), ("3000",)),
    Part("signing", "Signatures", (), ("0.5",)),
    Part("deferred", "200,000 deferred mails", (), None, 240.0),
    Part("fairness", "A dead destination beside a live one", (), None),
    Part("large_mail", "Large mail", (), None),
    Part("isolation", "Mail beside slow checks", (), None),
    Part("crowd", "200 large mails at once", (), None),
)


def _is_there(part: Part) -> bool:
    return importlib.util.find_spec(f"bench.{part.module}") is not None


PARTS: Final = {part.module: part for part in _ALL if _is_there(part)}


def belongs(name: str, *, short: bool) -> bool:
    """Whether a run has this part."""
    return not short or PARTS[name].short_arguments is not None


def run_part(name: str, *, short: bool) -> str:
    """What the program prints, or why there is nothing."""
    part = PARTS[name]
    arguments = (part.short_arguments or ()) if short else part.arguments
    seconds = _SHORT_SECONDS if short else part.seconds
    process = subprocess.Popen(
        [sys.executable, "-m", f"bench.{name}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process, signal.SIGINT)  # with it a program of ours ends what it started
        return f"not done within {seconds:.0f} s"
    if process.returncode:
        return f"failed: {' '.join(errors.strip().splitlines()[-1:])}"
    return output.strip("\n")
