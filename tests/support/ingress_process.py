"""The real process `gatepost ingress`, on free ports, before a scripted policy.

Life cycle: `running_process` starts it and waits until it is ready; `stop` sends SIGTERM and
returns the exit code; whatever is left is killed at the end.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.common.config.loader import overlaid
from services.common.jetstream import JetStream
from services.common.rpc.tokens import ensure_tokens
from services.common.store import NatsSettings
from services.common.tls import ensure_self_signed
from services.common.topology import TopologySettings, ensure
from tests.support.nats_server import NatsServer
from tests.support.ports import free_ports

_START_S = 30.0
_STOP_S = 40.0


@dataclass
class IngressProcess:
    """A running ingress."""

    process: asyncio.subprocess.Process
    port: int
    submissions_port: int
    http_port: int
    log_file: Path

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code."""
        async with asyncio.timeout(_STOP_S):
            return await self.process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        """An HTTP page: status and text; 0 when nobody answers."""
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{self.http_port}{path}")

    def memory_octets(self) -> int:
        """What the process has in memory at most so far (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@asynccontextmanager
async def running_process(
    folder: Path, nats: NatsServer, policy: str, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[IngressProcess]:
    """The process, ready, with listeners `mx` and `submissions`, and streams and tokens made."""
    store = JetStream(NatsSettings(urls=[nats.url], client_name="test"))
    await store.start(wait_s=10)
    await ensure(store, TopologySettings())
    await store.close()
    port, submissions_port, http_port = free_ports(3)
    config = folder / "gatepost.yaml"
    values = _values(
        folder, nats, policy, port=port, submissions_port=submissions_port, http_port=http_port
    )
    config.write_text(yaml.safe_dump(overlaid(values, changes or {})), encoding="utf-8")
    log_file = folder / "ingress.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli.main", "ingress", "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    running = IngressProcess(process, port, submissions_port, http_port, log_file)
    try:
        await _ready(running)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ready(running: IngressProcess) -> None:
    async with asyncio.timeout(_START_S):
        while (await running.get("/readyz"))[0] != 200:
            assert running.process.returncode is None, running.log_file.read_text(encoding="utf-8")
            await asyncio.sleep(0.05)


def _values(
    folder: Path,
    nats: NatsServer,
    policy: str,
    *,
    port: int,
    submissions_port: int,
    http_port: int,
) -> dict[str, Any]:
    certificate = ensure_self_signed(folder / "tls", "mx.example.test")
    ensure_tokens(folder / "tokens")
    host, _, policy_port = policy.rpartition(":")
    return {
        "smtp": {
            "hostname": "mx.example.test",
            "listeners": [
                {"name": "mx", "address": "127.0.0.1", "port": port},
                {
                    "name": "submissions",
                    "address": "127.0.0.1",
                    "port": submissions_port,
                    "role": "submission",
                    "tls": "implicit",
                },
            ],
            "tls": {
                "certificate_file": str(certificate.certificate),
                "key_file": str(certificate.key),
            },
        },
        "domains": {"local": ["example.test"]},
        "nats": {"urls": [nats.url]},
        "services": {
            "ingress": {"http": f"127.0.0.1:{http_port}"},
            "policy": {"grpc": f"{host}:{policy_port}", "http": "127.0.0.1:1"},
            "grace_period": "10s",
        },
        "auth": {"tokens_directory": str(folder / "tokens")},
    }


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
