"""`gatepost keys` as a process of its own, with its tokens, its logs at debug level and its ports.

Life cycle: `start` (returns when it is ready), any number of `kill` and `start`, `close`. The
folder stays, so that a process started again finds its keys.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import yaml

from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from services.common.config.loader import overlaid
from services.common.rpc.auth import Role
from services.common.rpc.tokens import ensure_tokens, token_file
from tests.support.ports import free_ports
from tests.support.programs import program

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_CALL_SECONDS = 15.0


class KeysProcess:
    """One keys service. Not started by the constructor."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self.keys = folder / "keys"
        self.tokens = folder / "tokens"
        self.log_file = folder / "log"
        self.http_port, self.rpc_port = free_ports(2)
        folder.mkdir(parents=True, exist_ok=True)
        ensure_tokens(self.tokens)
        values = overlaid(self._config(), config or {})
        self._config_file = folder / "gatepost.yaml"
        self._config_file.write_text(yaml.safe_dump(values), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self.answers: list[bytes] = []
        """All that calls were answered with, failures too, as octets."""

    def _config(self) -> dict[str, Any]:
        return {
            "keys": {"directory": str(self.keys)},
            "services": {
                "keys": {
                    "http": f"127.0.0.1:{self.http_port}",
                    "grpc": f"127.0.0.1:{self.rpc_port}",
                },
                "grace_period": "2s",
            },
            "auth": {"tokens_directory": str(self.tokens)},
            "log": {"level": "debug"},
        }

    def spawn(self) -> None:
        """Start, without waiting for anything."""
        command = [sys.executable, "-m", "services.cli.main", "keys"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self._config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def start(self) -> None:
        """Start, and return when it is ready. Raises `RuntimeError` with the log."""
        self.spawn()
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"gatepost keys did not become ready:\n{self.log}")
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether it says so."""
        with contextlib.suppress(urllib.error.URLError, OSError):
            return bool(self._get("/readyz")[0] == 200)
        return False

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def wait(self) -> int:
        """The exit code of a process that ends by itself."""
        assert self._process is not None
        return self._process.wait(_START_SECONDS)

    def close(self) -> None:
        """End it, whatever state it is in. Harmless twice."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it logged so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def metrics(self) -> str:
        """What /metrics says."""
        return self._get("/metrics")[1]

    def sample(self, name: str, **labels: str) -> float | None:
        """One value from /metrics."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.metrics.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                return float(value)
        return None

    def _get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()

    @contextlib.contextmanager
    def calling(self, role: Role = Role.OPERATOR) -> Iterator[KeysClient]:
        """The service as a caller with this role sees it."""
        token = "" if role is Role.NONE else token_file(self.tokens, role).read_text().strip()
        with grpc.insecure_channel(f"127.0.0.1:{self.rpc_port}") as channel:
            yield KeysClient(channel, token, self.answers)

    def grpcurl(
        self, method: str, body: str, *, role: Role = Role.OPERATOR
    ) -> subprocess.CompletedProcess[str]:
        """Call a method as a person does."""
        token = token_file(self.tokens, role).read_text().strip()
        return subprocess.run(
            [
                program("grpcurl"),
                "-plaintext",
                "-H",
                f"authorization: Bearer {token}",
                "-d",
                body,
                f"127.0.0.1:{self.rpc_port}",
                f"gatepost.keys.v1.KeyService/{method}",
            ],
            capture_output=True,
            text=True,
            timeout=_CALL_SECONDS,
            check=False,
        )


class KeysClient:
    """Calls with a token and a deadline: `client.CreateKey(request)`."""

    def __init__(self, channel: grpc.Channel, token: str, answers: list[bytes]) -> None:
        self._stub = KeyServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._answers = answers

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)

        def made(request: Any) -> Any:
            try:
                answer = call(request, timeout=_CALL_SECONDS, metadata=self._metadata)
            except grpc.RpcError as error:
                failed: Any = error
                self._answers.append(f"{failed.details()} {failed.trailing_metadata()}".encode())
                raise
            self._answers.append(answer.SerializeToString())
            return answer

        return made
