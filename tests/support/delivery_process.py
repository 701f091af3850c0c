"""`gatepost delivery` as a process of its own, beside a nats-server that the caller started.

Life cycle: `start` (returns when it is ready), any number of `kill` and `start`, `close`.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from services.common.config.loader import overlaid
from services.common.rpc.tokens import ensure_tokens
from tests.support.ports import free_ports

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 0.02


class DeliveryProcess:
    """One delivery service. Not started by the constructor; the streams must exist."""

    def __init__(
        self, folder: Path, *, nats: Sequence[str], config: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.tokens = folder / "tokens"
        self.http_port, self.rpc_port = free_ports(2)
        self._log = folder / "delivery.log"
        self._config_file = folder / "gatepost.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        ensure_tokens(self.tokens)
        values = overlaid(self._config(nats), config or {})
        self._config_file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def _config(self, nats: Sequence[str]) -> dict[str, Any]:
        return {
            "smtp": {"hostname": "mail.example.test"},
            "mailbox": {"directory": str(self.folder / "mail")},
            "nats": {"urls": list(nats)},
            "services": {
                "delivery": {
                    "http": f"127.0.0.1:{self.http_port}",
                    "grpc": f"127.0.0.1:{self.rpc_port}",
                },
                "grace_period": "5s",
            },
            "auth": {"tokens_directory": str(self.tokens)},
        }

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start, and return when it is ready. Raises `RuntimeError` with the log."""
        command = [sys.executable, "-m", "services.cli.main", "delivery"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self._config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while wait and not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"gatepost delivery did not become ready:\n{self.log()}")
            time.sleep(_ASK_AGAIN_SECONDS)

    def is_ready(self) -> bool:
        """Whether it says so."""
        with contextlib.suppress(urllib.error.URLError, OSError):
            return bool(self._get("readyz"))
        return False

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def close(self) -> None:
        """End it in order, or anyhow. Harmless twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        """All that it logged so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def metric(self, name: str, **labels: str) -> float:
        """One value from /metrics, 0 if it is not there."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self._get("metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(part in series for part in wanted):
                return float(value)
        return 0.0

    def _get(self, page: str) -> str:
        url = f"http://127.0.0.1:{self.http_port}/{page}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read(), "utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
