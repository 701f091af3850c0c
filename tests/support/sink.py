"""Postfix's smtp-sink as a next hop that keeps every mail it takes in a file of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.ports import free_port
from tests.support.programs import program

_START_DEADLINE_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 0.02


class Sink:
    """One smtp-sink. `start` and `stop` may alternate; the port stays. `close` once."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        # Not below pytest's folders: smtp-sink becomes another user, who cannot go there.
        self._folder = Path(tempfile.mkdtemp(prefix="smtp-sink-"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder.chmod(0o777)

    def mend(self) -> None:
        """Without the options that it was made with, from the next start on."""
        self._options = ()

    def start(self, *, wait: bool = True) -> None:
        """Start, and return when it greets, unless it is one that does not."""
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [
                program("smtp-sink"),
                *user,
                *self._options,
                "-d",
                f"{self._folder}/%M.",
                f"127.0.0.1:{self.port}",
                "100",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while wait and not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("smtp-sink did not start")
            time.sleep(_ASK_AGAIN_SECONDS)

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            return False

    def close(self) -> None:
        """End it and remove what it kept."""
        self.stop()
        shutil.rmtree(self._folder)

    def stop(self) -> None:
        """End it; it can be started again. Harmless twice."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def mails(self) -> list[bytes]:
        """The mails that arrived, with LF line ends and without smtp-sink's own lines."""
        return [_as_received(path.read_bytes()) for path in sorted(self._folder.iterdir())]

    def wait(self, text: bytes, *, seconds: float = 30.0) -> bytes:
        """The one mail that holds this text, once it arrived."""
        deadline = time.monotonic() + seconds
        while True:
            found = [mail for mail in self.mails() if text in mail]
            if found:
                assert len(found) == 1, f"{len(found)} mails hold {text!r}"
                return found[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"no mail with {text!r} after {seconds:.0f} s")
            time.sleep(_ASK_AGAIN_SECONDS)


def _as_received(content: bytes) -> bytes:
    """smtp-sink puts fields that begin with X- on top, and a line end below."""
    lines = content.split(b"\n")
    while lines and lines[0].startswith(b"X-"):
        lines.pop(0)
    return b"\n".join(lines).removesuffix(b"\n")
