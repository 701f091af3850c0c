"""Become another program that ends when its parent does.

Usage: `python -m services.cli.up.child PROGRAM ARG…`.

A `gatepost up` that is killed with SIGKILL cannot stop its children; the kernel then sends them
SIGTERM (prctl(2), PR_SET_PDEATHSIG). The setting survives exec. Elsewhere than on Linux the program
simply starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Ask for the signal, then become the program."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)  # the parent died before the setting was made
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - that is what this is for


if __name__ == "__main__":
    main()
