"""Become another program that ends when its parent does.

Usage: `python -m services.cli.up.child TIMER_SLACK_US PROGRAM ARG…`.

A `gatepost up` that is killed with SIGKILL cannot stop its children; the kernel then sends them
SIGTERM (prctl(2), PR_SET_PDEATHSIG). It may also wake the program so much later than
it asked for (PR_SET_TIMERSLACK; 0: as usual). The settings survive exec. Elsewhere than on Linux
the program simply starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_TIMERSLACK: Final = 29


def main() -> None:
    """Make the settings, then become the program."""
    timer_slack_us, *argv = sys.argv[1:]
    parent = os.getppid()
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(int(timer_slack_us) * 1000))
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)  # the parent died before the setting was made
    os.execv(argv[0], argv)  # noqa: S606 - that is what this is for


if __name__ == "__main__":
    main()
