"""Break a running Gatepost in every way, under load, and see that no mail is lost.

    python -m tests.chaos [--seconds 300] [--seed 1] [--only kills,failpoints] [--report FILE]

The ledger of what was sent, answered and delivered is kept by the senders and receivers, outside of
Gatepost. The exit code is 1 when a mail was lost, or anything else happened that must not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos import faults
from tests.chaos.report import table
from tests.chaos.world import Row, World
from tests.support.programs import extend_search_path

SMALL_STORAGE = "60MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=300, help="under load, all faults together"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="repeats a run's choices"
    )
    parser.add_argument("--only", default="", help=f"some of {','.join(sorted(names()))}")
    parser.add_argument("--sessions", type=int, default=6, help="that send at a time")
    parser.add_argument("--report", type=Path, help="where the report is written too")
    options = parser.parse_args(arguments)
    only = set(filter(None, options.only.split(",")))
    if unknown := only - names():
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    extend_search_path()
    run = _Run(only or names(), options.seconds, options.seed, options.sessions)
    rows = run.rows()
    text = f"seed {options.seed}\n\n{table(rows)}\n"
    sys.stdout.write(text)
    if options.report is not None:
        options.report.write_text(text, encoding="utf-8")
    return 1 if any(row.problems for row in rows) else 0


def names() -> set[str]:
    """The faults."""
    every = (*faults.ONE_NODE, *faults.APART, *faults.THREE_NODES)
    return {fault.__name__ for fault in every}


class _Run:
    """The chosen faults, one after the other, each in the world that it needs."""

    def __init__(self, chosen: set[str], seconds: float, seed: int, sessions: int) -> None:
        self._chosen = chosen
        self._share = seconds / len(chosen)
        self._random = Random(seed)
        self._sessions = sessions

    def rows(self) -> list[Row]:
        """Run all."""
        rows = [*self._in(self._world(), faults.ONE_NODE)]
        rows += self._in(self._world(storage=SMALL_STORAGE), [faults.full_storage])
        rows += self._in(self._world(has_clocks=True), [faults.jumping_clock])
        waiting = faults.overdue_mails(self._share)
        rows += self._in(self._world(waiting=waiting), [faults.overdue_mail])
        rows += self._in(self._world(nodes=3), faults.THREE_NODES)
        return rows

    def _world(self, **fields: Any) -> World:
        return World(self._random, self._sessions, **fields)

    def _in(self, world: World, possible: Sequence[faults.Fault]) -> Iterator[Row]:
        chosen = [fault for fault in possible if fault.__name__ in self._chosen]
        if chosen:
            with world:
                for fault in chosen:
                    yield self._round(world, fault)

    def _round(self, world: World, fault: faults.Fault) -> Row:
        name = (fault.__doc__ or fault.__name__).strip()
        with _told(name):
            world.begin(name)
            fault(world, self._share)
            row = world.end()
        sys.stderr.write(f"{table([row])}\n")
        return row


@contextmanager
def _told(name: str) -> Iterator[None]:
    began = time.monotonic()
    sys.stderr.write(f"{name} …")
    sys.stderr.flush()
    yield
    sys.stderr.write(f" {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
