"""A real nats-server with JetStream on loopback, as `gatepost up` and the chart run it.

Life cycle: `start` → running → `kill` (a crash) or `stop` (SIGTERM) → `start` again with the same
port and the same store. `close` ends it for good. Every write is synced before it is acknowledged
(`sync_interval: always`), so what was acknowledged before a `kill` is there after the next `start`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support.ports import free_port
from tests.support.programs import program

_START_DEADLINE_SECONDS = 20.0
_STOP_DEADLINE_SECONDS = 10.0
# How often a starting server is asked; it takes 20 to 50 ms to listen.
_ASK_AGAIN_SECONDS = 0.01

_CONFIG = """\
listen: "127.0.0.1:{port}"
max_payload: 1MB
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_file_store: {storage}
}}
# Without a limit of its own the account would report none, and services would call that unsafe.
accounts {{
  GATEPOST {{
    jetstream: {{ max_file: {storage}, max_mem: 1MB }}
    users: [ {{ user: gatepost, password: gatepost }} ]
  }}
  SYS {{}}
}}
system_account: SYS
no_auth_user: gatepost
"""


class NatsServer:
    """One server process, by its folder. Not started by the constructor."""

    def __init__(
        self,
        folder: Path,
        *,
        storage: str = "1GB",
        extra: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`extra` is added to the configuration, `environment` to ours."""
        self._environment = environment
        self.port = free_port()
        self._folder = folder
        self._config = folder / "nats.conf"
        self._log = folder / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            _CONFIG.format(port=self.port, store=json.dumps(str(folder / "store")), storage=storage)
            + extra,
            encoding="utf-8",
        )

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; an error when it is not running."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when clients can use JetStream.

        Raises `RuntimeError` with the end of the server's log if it is not ready in 20 seconds.
        """
        if self.is_running:
            raise RuntimeError("nats-server is running already")
        self._process = subprocess.Popen(
            [program("nats-server"), "--config", str(self._config), "--log", str(self._log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self._environment},
        )
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"nats-server did not start:\n{self._end_of_log()}")
            time.sleep(_ASK_AGAIN_SECONDS)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        process = self._running()
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End it as an operator does (SIGTERM)."""
        process = self._running()
        process.terminate()
        process.wait(_STOP_DEADLINE_SECONDS)

    def pause(self) -> None:
        """Make it silent without closing connections (SIGSTOP), as a hung machine is.

        Returns when every thread has stopped: the signal may wait for one that the disk keeps,
        while the others go on answering.
        """
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{process.pid}/task")
        deadline = time.monotonic() + _STOP_DEADLINE_SECONDS
        while any(_state(thread) not in "Tt" for thread in threads.iterdir()):
            if time.monotonic() > deadline:
                raise RuntimeError("nats-server did not pause")
            time.sleep(_ASK_AGAIN_SECONDS)

    def resume(self) -> None:
        """Undo `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it if it runs."""
        if self.is_running:
            self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("nats-server is not running")
        return self._process

    def _is_ready(self) -> bool:
        """Whether the server greets clients and says that JetStream is on."""
        with contextlib.suppress(OSError, ValueError):
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                greeting = connection.makefile("rb").readline()
            return bool(json.loads(greeting.removeprefix(b"INFO ")).get("jetstream"))
        return False

    def _end_of_log(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-20:])
        return "(no log)"


def _state(thread: Path) -> str:
    """The letter of proc_pid_stat(5); "T" is stopped, and so is a thread that has ended."""
    with contextlib.suppress(OSError):
        return (thread / "stat").read_text().rpartition(") ")[2][:1]
    return "T"
