"""Whether a mail server greets."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Final

from bench.names import LOOPBACK

_POLL_SECONDS: Final = 0.05


def greets(port: int) -> bool:
    """True if a mail server greets at this port of loopback."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            greeting = connection.recv(3)
            connection.sendall(b"QUIT\r\n")
            return greeting == b"220"
    except OSError:
        return False


def wait_for_greeting(port: int, process: subprocess.Popen[bytes], *, seconds: float) -> None:
    """Return when a server greets. Raises `RuntimeError` if it ends or takes too long."""
    deadline = time.monotonic() + seconds
    while not greets(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(_POLL_SECONDS)
