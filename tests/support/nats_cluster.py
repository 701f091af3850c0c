"""Three real nats-servers on loopback that form one cluster, as the chart runs them.

Life cycle: `start` → running → `kill(number)` and `start_node(number)` at will → `close`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.ports import free_ports
from tests.support.programs import program

NODES = 3

_START_DEADLINE_SECONDS = 40.0
_ASK_AGAIN_SECONDS = 0.05

_CONFIG = """\
server_name: "node-{number}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
max_payload: 1MB
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_file_store: {storage}
}}
cluster {{
  name: gatepost
  listen: "127.0.0.1:{route}"
  routes: [{routes}]
}}
accounts {{
  GATEPOST {{
    jetstream: {{ max_file: {account}, max_mem: 1MB }}
    users: [ {{ user: gatepost, password: gatepost }} ]
  }}
  SYS {{}}
}}
system_account: SYS
no_auth_user: gatepost
"""


class NatsCluster:
    """Nodes 0, 1 and 2. Not started by the constructor."""

    def __init__(self, folder: Path, *, storage_octets: int = 10**9) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(3 * NODES)
        self._ports, routes, self._monitors = ports[:NODES], ports[NODES : 2 * NODES], ports[6:]
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES
        for number in range(NODES):
            self._config(number).write_text(
                _CONFIG.format(
                    number=number,
                    port=self._ports[number],
                    monitor=self._monitors[number],
                    store=json.dumps(str(folder / f"store-{number}")),
                    storage=storage_octets,
                    # What an account stores counts once for each replica.
                    account=storage_octets * NODES,
                    route=routes[number],
                    routes=", ".join(f'"nats://127.0.0.1:{port}"' for port in routes),
                ),
                encoding="utf-8",
            )

    def _config(self, number: int) -> Path:
        return self._folder / f"node-{number}.conf"

    @property
    def urls(self) -> list[str]:
        """What a client connects to."""
        return [f"nats://127.0.0.1:{port}" for port in self._ports]

    def start(self) -> None:
        """Start all, and return when streams can be made. Raises `RuntimeError`."""
        for number in range(NODES):
            self.start_node(number)
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while not self._has_leader():
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError("the three nats-servers found no leader")
            time.sleep(_ASK_AGAIN_SECONDS)

    def start_node(self, number: int) -> None:
        """Start one; it joins by itself. Nothing happens if it runs."""
        process = self._processes[number]
        if process is None or process.poll() is not None:
            log = self._folder / f"node-{number}.log"
            self._processes[number] = subprocess.Popen(
                [program("nats-server"), "-c", str(self._config(number)), "--log", str(log)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def kill(self, number: int) -> None:
        """SIGKILL one. Nothing happens if it does not run."""
        process = self._processes[number]
        if process is not None:
            process.kill()
            process.wait()

    def leader(self, stream: str) -> int | None:
        """The node that leads a stream; None while there is none."""
        for number in range(NODES):
            found = self._leaders(number).get(stream, "")
            if found.startswith("node-"):
                return int(found.removeprefix("node-"))
        return None

    def close(self) -> None:
        """End all."""
        for number in range(NODES):
            self.kill(number)

    def _leaders(self, number: int) -> dict[str, str]:
        """The leader of each stream, as one node knows it."""
        accounts = self._ask(number, "jsz?accounts=true&streams=true").get("account_details", [])
        return {
            stream["name"]: stream.get("cluster", {}).get("leader", "")
            for account in accounts
            for stream in account.get("stream_detail") or ()
        }

    def _has_leader(self) -> bool:
        """Whether the nodes agree on one of them and all have come."""
        answers = [self._ask(number, "jsz").get("meta_cluster", {}) for number in range(NODES)]
        leaders = {answer.get("leader", "") for answer in answers}
        sizes = {answer.get("cluster_size", 0) for answer in answers}
        return len(leaders) == 1 and leaders != {""} and sizes == {NODES}

    def _ask(self, number: int, what: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._monitors[number]}/{what}"
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(url, timeout=2) as answer,
        ):
            found: dict[str, Any] = json.load(answer)
            return found
        return {}
