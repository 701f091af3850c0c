"""The pods of a rendered chart as containers of Podman, with the security settings that it gives.

No cluster and no daemon: one network namespace with nothing but loopback stands for the network,
folders stand for ConfigMaps, Secrets and volumes. What a kubelet would enforce is enforced here:
user, capabilities, privilege escalation, read-only root, the files' owner and mode.

Life cycle: `start` → running → `stop`. `close` removes whatever is left.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.chart import NAMESPACE, Chart, Manifest, container

NETWORK_PROGRAMS: Final = ("podman", "runc", "unshare", "nsenter", "ip")
_READY_DEADLINE_SECONDS: Final = 90.0
_PREFIX: Final = "gatepost-test"


def missing() -> str:
    """What this machine lacks to run containers; blank if nothing."""
    if os.geteuid() != 0:
        return "root"
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return ", ".join(name for name in NETWORK_PROGRAMS if shutil.which(name, path=path) is None)


def sources_of(image: str) -> str:
    """The digest of the sources that an image was made of; blank if Podman has no such image."""
    label = '{{index .Config.Labels "gatepost.sources"}}'
    return _podman("image", "inspect", "--format", label, image, check=False).stdout.strip()


class Containers:
    """The containers of one rendering. Not started by the constructor."""

    def __init__(self, chart: Chart, folder: Path) -> None:
        self._chart = chart
        self._folder = folder
        self._names: dict[str, str] = {}
        self._network: subprocess.Popen[bytes] | None = None

    def start(self, *components: str) -> None:
        """Start these, all at once as a cluster does."""
        if self._network is None:
            self._network = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep 3600"]
            )
            self._wait("the network", lambda: self._inside("true") == 0)
        for component in components:
            self._start(component)

    def wait_ready(self, component: str) -> None:
        """Wait until the readiness probe is content. Raises `RuntimeError` with the logs."""
        box = container(self._chart.pod(component))
        probe = box["readinessProbe"]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in box["ports"]}
        url = f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}"
        ask = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=2)"
        self._wait(component, lambda: self._inside(sys.executable, "-c", ask) == 0)

    def wait_ended(self, component: str, *, timeout_s: float = 120) -> int:
        """The exit code of a Job or Pod once it has ended."""
        done = _podman("wait", self._names[component], timeout_s=timeout_s)
        return int(done.stdout.strip())

    def run_inside(self, component: str, *command: str) -> str:
        """What a command prints in a running container."""
        return _podman("exec", self._names[component], *command).stdout

    def logs(self, component: str) -> str:
        """What it logged so far."""
        done = _podman("logs", self._names[component])
        return done.stdout + done.stderr

    def stop(self, component: str) -> int:
        """SIGTERM, as long as the pod may take, and the exit code."""
        seconds = self._chart.pod(component)["spec"]["terminationGracePeriodSeconds"]
        name = self._names[component]
        _podman("stop", "--time", str(seconds), name, timeout_s=seconds + 30)
        return int(_podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout)

    def close(self) -> None:
        """Remove every container and the network. Harmless twice."""
        for name in self._names.values():
            _podman("rm", "--force", "--time", "0", name, check=False)
        self._names.clear()
        if self._network is not None:
            self._network.kill()
            self._network.wait()
            self._network = None

    def _start(self, component: str) -> None:
        assert self._network is not None
        pod = self._chart.pod(component)
        box = container(pod)
        name = f"{_PREFIX}-{os.getpid()}-{component}"
        self._names[component] = name
        _podman(
            *("run", "--detach", "--name", name, "--pull", "never", "--hostname", component),
            *("--network", f"ns:/proc/{self._network.pid}/ns/net"),
            # More than the limits of the test's own process cannot be asked for.
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),
            *(f"--add-host={host}:127.0.0.1" for host in self._hosts()),
            *_security(pod["spec"]["securityContext"], box["securityContext"]),
            *self._mounts(component, pod, box),
            *(f"--env={key}={value}" for key, value in self._environment(box).items()),
            *(("--entrypoint", box["command"][0]) if "command" in box else ()),
            box["image"],
            *box.get("command", [])[1:],
            *box.get("args", []),
        )

    def _hosts(self) -> Sequence[str]:
        return [
            f"{service['metadata']['name']}.{NAMESPACE}.svc.cluster.local"
            for service in self._chart.of("Service")
        ]

    def _mounts(self, component: str, pod: Manifest, box: Manifest) -> Sequence[str]:
        group = pod["spec"]["securityContext"]["fsGroup"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        options = []
        for mount in box["volumeMounts"]:
            place = self._folder / component / mount["name"]
            place.mkdir(parents=True, exist_ok=True)
            writable = self._fill(place, volumes.get(mount["name"], {}), group)
            mode = "rw" if writable and not mount.get("readOnly") else "ro"
            options.append(f"--volume={place}:{mount['mountPath']}:{mode}")
        return options

    def _fill(self, place: Path, volume: Mapping[str, Any], group: int) -> bool:
        """Put a volume's files there as the kubelet does. True if it may be written."""
        if "secret" in volume:
            source = volume["secret"]
            data = self.secret(source["secretName"])
            paths = {item["key"]: item["path"] for item in source.get("items", [])}
            for key, value in data.items():
                if not paths or key in paths:
                    _write(place / paths.get(key, key), value, group, source["defaultMode"])
            return False
        if "configMap" in volume:
            name = volume["configMap"]["name"]
            (found,) = [m for m in self._chart.of("ConfigMap") if m["metadata"]["name"] == name]
            for key, text in found["data"].items():
                _write(place / key, text.encode(), group, 0o644)
            return False
        os.chown(place, 0, group)
        place.chmod(0o2775)
        return True

    def secret(self, name: str) -> dict[str, bytes]:
        """What is in a Secret of the rendering, by its whole name."""
        (found,) = [s for s in self._chart.of("Secret") if s["metadata"]["name"] == name]
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    def _environment(self, box: Manifest) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for variable in box.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                value = self.secret(reference["name"])[reference["key"]].decode()
            elif "fieldRef" in source:
                value = "pod-0"
            else:
                value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"])
            found[variable["name"]] = value
        return found

    def _inside(self, *command: str) -> int:
        assert self._network is not None
        enter = ("nsenter", "--target", str(self._network.pid), "--net", *command)
        return subprocess.run(enter, check=False, capture_output=True).returncode

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_DEADLINE_SECONDS
        while not done():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}:\n{self.logs(name)[-3000:]}" for name in self._names)
                raise RuntimeError(f"{what} is not ready\n{logs}")
            time.sleep(0.2)


def _security(pod: Manifest, box: Manifest) -> Sequence[str]:
    options = [f"--user={pod['runAsUser']}:{pod['runAsGroup']}", f"--group-add={pod['fsGroup']}"]
    options += [f"--cap-drop={name}" for name in box["capabilities"]["drop"]]
    if not box["allowPrivilegeEscalation"]:
        options.append("--security-opt=no-new-privileges")
    if box["readOnlyRootFilesystem"]:
        # Podman would put file systems for writing at /tmp, /run and /var/tmp; a kubelet does not.
        options += ["--read-only", "--read-only-tmpfs=false"]
    return options


def _write(path: Path, data: bytes, group: int, mode: int) -> None:
    path.write_bytes(data)
    os.chown(path, 0, group)
    path.chmod(mode)


def _podman(
    *arguments: str, check: bool = True, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["podman", "--runtime", "runc", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(arguments[:2])}: {done.stderr}")
    return done
