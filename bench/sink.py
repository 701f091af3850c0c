"""Where all contenders deliver to: smtp-sink, which counts, or keeps what it gets as a sample."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from bench.names import LOOPBACK
from bench.processes import end
from tests.support.ports import free_port
from tests.support.programs import program

_START_SECONDS: Final = 10.0
_SAMPLE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_COUNT: Final = re.compile(rb"mesg=(\d+)")
_BLOCK: Final = 65536


class Sink:
    """An smtp-sink that tells when it has how many mails."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start, and return when it listens."""
        self._process = _smtp_sink(self.port, "-c")
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    @property
    def count(self) -> int:
        """How many mails it has taken."""
        return self._count

    def wait(self, count: int, *, seconds: float) -> float:
        """The monotonic time at which it had so many mails. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, seconds):
                raise TimeoutError(f"{self._count} of {count} mails arrived")
            return time.monotonic()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Follow its counters: it rewrites one line, so the last number of a block counts."""
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        rest = b""
        while block := os.read(process.stdout.fileno(), _BLOCK):
            lines = (rest + block).split(b"\r")
            rest = lines.pop()
            found = _COUNT.findall(b"\r".join(lines))
            if found:
                with self._changed:
                    self._count = int(found[-1])
                    self._changed.notify_all()
        process.stdout.close()


class Sample:
    """An smtp-sink that keeps the mails that it takes, while the `with` statement lasts."""

    def __init__(self, port: int) -> None:
        self._port = port
        # smtp-sink becomes another user, who must get there.
        self._folder = tempfile.TemporaryDirectory(prefix="gatepost-bench-sample-")
        Path(self._folder.name).chmod(0o777)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sample:
        self._process = _smtp_sink(self._port, "-d", f"{self._folder.name}/%M.")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None  # noqa: S101 - entered
        end(self._process)
        self._folder.cleanup()

    def wait(self) -> bytes:
        """The mail that arrived. Raises `TimeoutError`."""
        deadline = time.monotonic() + _SAMPLE_SECONDS
        while time.monotonic() < deadline:
            if files := list(Path(self._folder.name).iterdir()):
                time.sleep(_POLL_SECONDS * 5)  # the file is there before its end is
                return files[0].read_bytes()
            time.sleep(_POLL_SECONDS)
        raise TimeoutError("no mail arrived")


def _smtp_sink(port: int, *options: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [program("smtp-sink"), "-u", "nobody", *options, f"{LOOPBACK}:{port}", "1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("smtp-sink did not start")
        time.sleep(_POLL_SECONDS)
    return process


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
