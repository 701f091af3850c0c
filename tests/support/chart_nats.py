"""nats-server with the configuration that the chart renders, on loopback: one node or three."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from services.common.store import NatsSettings, NatsTls
from tests.support.certificates import CertificateFolder
from tests.support.chart import Chart, container
from tests.support.ports import free_ports

USERS = ("ingress", "policy", "delivery", "topology", "route")
_START_DEADLINE_SECONDS = 30.0


class ChartNats:
    """The nodes of one rendering. Not started by the constructor."""

    def __init__(
        self, chart: Chart, folder: Path, *, certificates: CertificateFolder | None = None
    ) -> None:
        """`certificates` takes the place of the Secret where the chart encrypts."""
        self._folder = folder
        self._certificates = certificates
        self._script = folder / "run-nats.sh"
        files = chart.one("ConfigMap", "nats")["data"]
        # Once: a shell reads its script while it runs.
        self._script.write_text(files["run-nats.sh"], encoding="utf-8")
        self._text = str(files["nats.conf"])
        self._command = container(chart.pod("nats"))["command"]
        self._variables = container(chart.pod("nats"))["env"]
        self.nodes = int(chart.one("StatefulSet", "nats")["spec"]["replicas"])
        ports = free_ports(3 * self.nodes)
        self.ports = ports[: self.nodes]
        self._monitors = ports[self.nodes : 2 * self.nodes]
        self._routes = ports[2 * self.nodes :]
        self._processes: list[subprocess.Popen[bytes]] = []
        for user in USERS:
            (folder / user).write_text(f"p{user}-password\n", encoding="utf-8")

    def settings(self, user: str) -> NatsSettings:
        """How this user connects."""
        scheme = "nats" if self._certificates is None else "tls"
        return NatsSettings(
            urls=tuple(f"{scheme}://127.0.0.1:{port}" for port in self.ports),
            client_name="test",
            username=user,
            password_file=self._folder / user,
            tls=NatsTls(authorities=self._certificates.ca) if self._certificates else None,
        )

    def start(self) -> None:
        """Start every node, and return when each has JetStream. Raises `RuntimeError`."""
        self._processes = [self._start(number) for number in range(self.nodes)]
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while not all(self._is_healthy(port) for port in self._monitors):
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._processes):
                self.close()
                raise RuntimeError("\n".join(p.read_text() for p in self._folder.glob("*.log")))
            time.sleep(0.05)

    def kill(self, number: int) -> None:
        """End a node as a crash does."""
        os.killpg(self._processes[number].pid, signal.SIGKILL)
        self._processes[number].wait()

    def close(self) -> None:
        """End all nodes."""
        for process in self._processes:
            # The number of one that was waited for may be another's by now.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        folder = self._folder / f"node-{number}"
        folder.mkdir(exist_ok=True)
        text = self._text.replace('store_dir: "/data"', f"store_dir: {json.dumps(str(folder))}")
        text = text.replace("port: 4222", f'host: "127.0.0.1"\nport: {self.ports[number]}')
        text = text.replace("http_port: 8222", f'http: "127.0.0.1:{self._monitors[number]}"')
        if self.nodes > 1:
            text = text.replace("port: 6222", f'host: "127.0.0.1"\n  port: {self._routes[number]}')
        if self._certificates is not None:
            text = text.replace("/etc/nats-tls", str(self._certificates.ca.parent))
        config = folder / "nats.conf"
        config.write_text(text, encoding="utf-8")
        with folder.with_suffix(".stderr.log").open("ab") as said:
            return subprocess.Popen(
                [*self._placed(folder), "--log", f"{folder}.log"],
                env=os.environ | self._environment(f"node-{number}"),
                # With the shell that watches the files, which a container would end with it.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def _placed(self, folder: Path) -> list[str]:
        """The container's command, with what is mounted there where it is here."""
        places = {
            "/etc/nats/run-nats.sh": self._script,
            "/etc/nats/nats.conf": folder / "nats.conf",
            "/data": folder,
        }
        if self._certificates is not None:
            places["/etc/nats-tls"] = self._certificates.ca.parent
        return [str(places.get(word, word)) for word in self._command]

    def _environment(self, name: str) -> dict[str, str]:
        """The container's, as the kubelet would make it: variables refer to those before."""
        found = {"POD_NAME": name, "RELOAD_SECONDS": "1"}
        for variable in self._variables:
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            if source is not None:
                found[variable["name"]] = f"p{source['key']}-password"
            elif "value" in variable:
                found[variable["name"]] = re.sub(
                    r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"]
                )
        if "ROUTES" in found:
            routes = iter(self._routes)
            found["ROUTES"] = re.sub(
                r'@[^"]+', lambda _: f"@127.0.0.1:{next(routes)}", found["ROUTES"]
            )
        return found

    def _is_healthy(self, port: int) -> bool:
        """What the startup probe asks."""
        url = f"http://127.0.0.1:{port}/healthz"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
        return False
