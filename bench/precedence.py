"""Precedence over what else a machine does, for all processes of a comparison alike.

On a machine that is busy with other things, contenders of many processes get more of it than those
of few. Linux schedules sessions before processes (sched(7), autogroups), so both are given
priority, and those that are started later soon after their start.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.processes import family

NICENESS: Final = -12
_LOOK_SECONDS: Final = 0.3
_INIT: Final = 1


@contextlib.contextmanager
def precedence() -> Iterator[None]:
    """As long as the `with` statement lasts; then our own session has what it had."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(done,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        _give(os.getpid(), 0)


def _keep(done: threading.Event) -> None:
    known: set[int] = set()
    while not done.wait(_LOOK_SECONDS):
        found = set(family([os.getpid()])) - {_INIT}
        for pid in found - known:
            _give(pid, NICENESS)
        known = found


def _give(pid: int, niceness: int) -> None:
    # It may have ended, or this kernel has no autogroups.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness), encoding="ascii")
