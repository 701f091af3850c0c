"""A `gatepost up` of a test's own: real processes, free ports, everything in one temporary folder.

Life cycle: `start` → running → `kill(name)` as often as wanted (the supervisor starts it again) →
`stop`. `close` ends whatever is left. Names: ingress, policy, delivery, keys, nats.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from services.cli.failure import Exit
from services.common.config.loader import overlaid
from tests.support.ports import free_ports

_START_DEADLINE_SECONDS = 90.0
_STOP_DEADLINE_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 0.05
_PORTS = (
    "mx",
    "submission",
    "submissions",
    "policy",
    "keys",
    "queue",
    "ingress-http",
    "policy-http",
    "delivery-http",
    "keys-http",
    "nats",
)
GATEPOST: Sequence[str] = (sys.executable, "-m", "services.cli.main")
SERVICES = ("ingress", "policy", "delivery", "keys")


class Installation:
    """One `gatepost up`. Not started by the constructor."""

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config_file = folder / "gatepost.yaml"
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.output: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._configured = 0
        self.configure(config or {})

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write the configuration file; running services follow it."""
        values = overlaid(self._ports_config(), config)
        fresh = self.config_file.with_suffix(".new")
        # The comment makes a file that says the same as before a changed one.
        self._configured += 1
        text = f"{yaml.safe_dump(values)}# {self._configured}\n"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.config_file)

    def reconfigure(self, config: Mapping[str, Any], *, seconds: float = 30.0) -> None:
        """As `configure`, and return when the services that judge and route mail follow it."""
        services = ("ingress", "policy", "delivery")
        before = {service: self._reloads(service) for service in services}
        self.configure(config)
        deadline = time.monotonic() + seconds
        while any(self._reloads(service) == before[service] for service in services):
            if time.monotonic() > deadline:
                raise TimeoutError("the configuration was not applied")
            time.sleep(_ASK_AGAIN_SECONDS)

    def _reloads(self, service: str) -> float:
        name = 'gatepost_config_reloads_total{result="applied"} '
        lines = self.metrics(service).splitlines()
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0)

    def _ports_config(self) -> dict[str, Any]:
        ports = self.ports
        listeners = (("mx", "mx", "starttls"), ("submission", "submission", "starttls"))
        return {
            "smtp": {
                "hostname": "mail.example.test",
                "listeners": [
                    {
                        "name": name,
                        "address": "127.0.0.1",
                        "port": ports[name],
                        "role": role,
                        "tls": tls,
                    }
                    for name, role, tls in (*listeners, ("submissions", "submission", "implicit"))
                ],
            },
            "domains": {"local": ["example.test"]},
            "nats": {"urls": [f"nats://127.0.0.1:{ports['nats']}"], "storage_limit": "1GB"},
            "services": {
                "ingress": {"http": f"127.0.0.1:{ports['ingress-http']}"},
                "policy": _rpc(ports, "policy", "policy"),
                "keys": _rpc(ports, "keys", "keys"),
                "delivery": _rpc(ports, "delivery", "queue"),
            },
        }

    def start(self, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start, and return when everything is ready. Raises `RuntimeError` with the output.

        `environment` is added to ours.
        """
        self._process = subprocess.Popen(
            [*GATEPOST, "up", "--config", str(self.config_file), "--data", str(self.data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        running = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, running))
        self._reader.start()
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while not running.wait(_ASK_AGAIN_SECONDS):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError("gatepost up did not start:\n" + "".join(self.output))

    def _read(self, process: subprocess.Popen[str], running: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line)
            if "is running" in line:
                running.set()

    def stop(self) -> int:
        """SIGTERM, and the exit code once everything has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_STOP_DEADLINE_SECONDS)
        self._join()
        return code

    def interrupt(self) -> int:
        """SIGINT again and again, and the exit code."""
        assert self._process is not None
        while self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.005)
        self._join()
        return self._process.returncode

    def close(self) -> None:
        """End it, whatever state it is in. Harmless twice."""
        if self._process is None:
            return
        if self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._join()
        self._process = None

    def _join(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=10)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def supervisor_pid(self) -> int:
        """The process id of `gatepost up` itself, from which all others descend."""
        assert self._process is not None
        return self._process.pid

    def pid(self, name: str) -> int:
        """The process id of a child as the supervisor wrote it down."""
        return int((self.data / "run" / f"{name}.pid").read_text(encoding="ascii"))

    def kill(self, name: str) -> None:
        """SIGKILL one child, one of ours by its id. It may have died, or started, this moment."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(self.pid(name), signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """One child hangs meanwhile (SIGSTOP)."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_ready(self, name: str, *, seconds: float = 30.0) -> None:
        """Return when a service says that it is ready."""
        url = f"http://127.0.0.1:{self.ports[f'{name}-http']}/readyz"
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready after {seconds:.0f} s")
            time.sleep(_ASK_AGAIN_SECONDS)

    def metrics(self, name: str) -> str:
        """What a service's /metrics says."""
        url = f"http://127.0.0.1:{self.ports[f'{name}-http']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def gatepost(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this installation."""
        return subprocess.run(
            [*GATEPOST, *arguments, "--data", str(self.data)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def add_account(self, address: str, password: str, *, seconds: float = 60.0) -> None:
        """Make an account, once the disk lets the store. Raises `RuntimeError`."""
        deadline = time.monotonic() + seconds
        options = ("--password-file", "-") if password else ("--no-password",)
        was_in_doubt = False
        while True:
            made = self.gatepost("accounts", "add", address, *options, stdin=password)
            if made.returncode == 0 or (was_in_doubt and "exists" in made.stderr):
                return
            if made.returncode != Exit.UNAVAILABLE or time.monotonic() > deadline:
                raise RuntimeError(f"{address}: {made.stderr}")
            was_in_doubt = True

    def mail(self, address: str, *, folder: str = "") -> list[bytes]:
        """What lies in a local mailbox, or in its folder `.Junk`; the oldest first."""
        local_part, _, domain = address.partition("@")
        place = self.data / "mail" / domain / local_part / folder
        return [path.read_bytes() for path in _oldest_first([place / "new", place / "cur"])]

    def wait_mail(
        self, address: str, count: int = 1, *, folder: str = "", seconds: float = 30.0
    ) -> list[bytes]:
        """The mails of a mailbox once there are `count`."""
        deadline = time.monotonic() + seconds
        while len(found := self.mail(address, folder=folder)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(found)} of {count} mails for {address} after {seconds:.0f} s\n"
                    + self.log_tail("delivery")
                )
            time.sleep(_ASK_AGAIN_SECONDS)
        return found

    def wait_log(self, name: str, *texts: str, seconds: float = 30.0) -> str:
        """The line with all these texts once a child has logged it and the supervisor kept it."""
        path = self.data / "logs" / f"{name}.log"
        deadline = time.monotonic() + seconds
        while True:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            for line in lines:
                # The last one may be half there.
                if line.endswith("\n") and all(text in line for text in texts):
                    return line
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} did not log {texts}\n{self.log_tail(name)}")
            time.sleep(_ASK_AGAIN_SECONDS)

    def log_tail(self, name: str, *, lines: int = 20) -> str:
        """The end of what a child logged."""
        path = self.data / "logs" / f"{name}.log"
        return "\n".join(path.read_text(encoding="utf-8").splitlines()[-lines:])


def _rpc(ports: Mapping[str, int], http: str, grpc: str) -> dict[str, str]:
    return {"http": f"127.0.0.1:{ports[f'{http}-http']}", "grpc": f"127.0.0.1:{ports[grpc]}"}


def _oldest_first(folders: Sequence[Path]) -> list[Path]:
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)
