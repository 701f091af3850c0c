"""A policy service of a test's own: the real process, with its NATS server, DNS server and tokens.

    with PolicyProcess(folder, nats_url=nats_server.url, dns=dns.address) as policy:
        answer = policy.check_envelope(client="192.0.2.1", helo="mx.example.org", …)

Life cycle: `start` → running → `configure` as often as wanted (the process follows) → `stop`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import yaml

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1.directory_pb2_grpc import DirectoryServiceStub
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.common.config.loader import load, overlaid
from services.common.jetstream import JetStream
from services.common.rpc.auth import Role
from services.common.rpc.tokens import ensure_tokens, token_file
from services.common.topology import ensure
from services.common.wiring import nats_settings, topology_settings
from tests.support.ports import free_ports
from tests.support.programs import program

_START_SECONDS = 30.0
_FOLLOW_SECONDS = 30.0
_CALL_SECONDS = 20.0


class PolicyProcess:
    """`gatepost policy` on free ports of loopback."""

    def __init__(
        self, folder: Path, *, nats_url: str, dns: str, config: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.port, self.http_port = free_ports(2)
        self.tokens = folder / "tokens"
        self.config_file = folder / "gatepost.yaml"
        self._fixed: dict[str, Any] = {
            "smtp": {"hostname": "mail.example.test"},
            "domains": {"local": ["example.test"]},
            "nats": {"urls": [nats_url]},
            # Its server may be a thread of a process that has much to do.
            "dns": {"servers": [dns], "attempt_timeout": "15s", "timeout": "30s"},
            "services": {
                "policy": {
                    "grpc": f"127.0.0.1:{self.port}",
                    "http": f"127.0.0.1:{self.http_port}",
                }
            },
            "auth": {"tokens_directory": str(self.tokens)},
        }
        self._log = folder / "policy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._configured = 0
        self.changed = False
        """Whether its configuration is another than at the start."""
        folder.mkdir(parents=True, exist_ok=True)
        ensure_tokens(self.tokens)
        self._write(config or {})

    @property
    def target(self) -> str:
        """Where its gRPC port is."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; an error when it is not running."""
        if self._process is None:
            raise RuntimeError("the policy service is not running")
        return self._process.pid

    @property
    def checks(self) -> PolicyServiceStub:
        """The stub of PolicyService."""
        return PolicyServiceStub(self._open())

    @property
    def directory(self) -> DirectoryServiceStub:
        """The stub of DirectoryService."""
        return DirectoryServiceStub(self._open())

    def token(self, role: Role) -> str:
        """The token of a role."""
        return token_file(self.tokens, role).read_text(encoding="ascii").strip()

    def call(self, method: Any, request: Any, *, role: Role | None = Role.SERVICE) -> Any:
        """Call a method of a stub as a role, or as anybody."""
        metadata = [("authorization", f"Bearer {self.token(role)}")] if role else []
        return method(request, metadata=metadata, timeout=_CALL_SECONDS)

    def check_envelope(
        self,
        *,
        client: str = "192.0.2.1",
        helo: str = "",
        sender: str = "",
        recipients: tuple[str, ...] = ("you@example.test",),
        account: str = "",
        message_id: str = "",
        role: Role | None = None,
    ) -> pb.CheckEnvelopeResponse:
        """Ask about an envelope; a dry run unless a message id is given."""
        request = pb.CheckEnvelopeRequest(
            session=pb.Session(client_address=client, helo=helo, authenticated_account=account),
            sender=sender,
            recipients=recipients,
            dry_run=not message_id,
            message_id=message_id,
        )
        asks = role or (Role.SERVICE if message_id else None)
        answer: pb.CheckEnvelopeResponse = self.call(self.checks.CheckEnvelope, request, role=asks)
        return answer

    def grpcurl(
        self, method: str, request: Mapping[str, Any] | str, *, role: Role | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Call a method as a person does."""
        header = ["-H", f"authorization: Bearer {self.token(role)}"] if role else []
        data = request if isinstance(request, str) else json.dumps(request)
        command = [program("grpcurl"), "-plaintext", *header, "-d", data, self.target, method]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False
        )

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self._http("metrics").splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(part in head for part in wanted):
                return float(value)
        return 0.0

    def configure(self, config: Mapping[str, Any], *, is_start: bool = False) -> None:
        """Replace the configuration, and return when the process follows it.

        `is_start` says that it is the one that the process was started with.
        """
        self.changed = not is_start
        self._await_reload("applied", lambda: self._write(config))

    def break_configuration(self, text: str) -> None:
        """Replace the configuration by one that is wrong, and return when the process said so."""
        self.changed = True
        self._await_reload("invalid", lambda: self.config_file.write_text(text, encoding="utf-8"))

    def _await_reload(self, result: str, change: Callable[[], object]) -> None:
        before = self._reloads(result)
        change()
        deadline = time.monotonic() + _FOLLOW_SECONDS
        while self._reloads(result) == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the configuration was not {result}:\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """What the process has logged."""
        return self._log.read_text(encoding="utf-8")

    def start(self) -> Self:
        """Start, and return when it is ready."""
        asyncio.run(self._ensure_topology())
        command = [sys.executable, "-m", "services.cli.main", "policy"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the policy service did not start:\n{self.log()}")
            time.sleep(0.05)
        return self

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """End it in order; SIGKILL if that takes too long."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.target)
        return self._channel

    def _write(self, config: Mapping[str, Any]) -> None:
        # The comment makes a file that says the same as before a changed one.
        self._configured += 1
        text = yaml.safe_dump(overlaid(self._fixed, config)) + f"# {self._configured}\n"
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.config_file)

    async def _ensure_topology(self) -> None:
        config = load(self.config_file)
        store = JetStream(nats_settings(config, client_name="test"))
        await store.start(wait_s=30)
        try:
            await ensure(store, topology_settings(config))
        finally:
            await store.close()

    def _reloads(self, result: str) -> float:
        return self.metric("gatepost_config_reloads_total", result=result)

    def _ready(self) -> bool:
        try:
            self._http("readyz")
        except OSError:
            return False
        return True

    def _http(self, page: str) -> str:
        url = f"http://127.0.0.1:{self.http_port}/{page}"
        with urllib.request.urlopen(url, timeout=30) as got:
            return str(got.read(), "utf-8")
