"""kubectl and Helm against one context and one namespace; every call has an end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

CALL_SECONDS: Final = 60.0
HELM_SECONDS: Final = 720.0
"""More than what Helm itself is told to wait."""


class Failed(Exception):
    """A step did not do what it should; the text is what a person reads."""


def program(name: str) -> str:
    """The path of a program. Raises `Failed`."""
    found = shutil.which(name)
    if found is None:
        raise Failed(f"{name} is not on the PATH")
    return found


class Cluster:
    """One namespace of the cluster that a context names."""

    def __init__(self, *, context: str, namespace: str) -> None:
        self.context = context
        self.namespace = namespace

    def kubectl(
        self, *arguments: str, given: str | None = None, seconds: float = CALL_SECONDS
    ) -> str:
        """What kubectl prints. Raises `Failed`."""
        place = ("--context", self.context, "--namespace", self.namespace)
        return run(program("kubectl"), *place, *arguments, given=given, seconds=seconds)

    def helm(self, *arguments: str, given: str | None = None) -> str:
        """What Helm prints. Raises `Failed`."""
        place = ("--kube-context", self.context, "--namespace", self.namespace)
        return run(program("helm"), *arguments, *place, given=given, seconds=HELM_SECONDS)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Make or change objects. Raises `Failed`."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename", "-", given=json.dumps(items))

    def get(self, *arguments: str) -> Any:
        """Objects, as JSON gives them. Raises `Failed`."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def lines(self, pod: str) -> list[dict[str, Any]]:
        """What a pod of ours wrote so far; a last line that is not whole is left out."""
        text = self.kubectl("logs", pod, "--tail=-1")
        found = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def wait_running(self, pod: str) -> None:
        """Return when a pod runs. Raises `Failed`."""
        self.kubectl(
            *("wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=180s"), seconds=200
        )

    def rolled_out(self, kinds: Iterable[str], *, seconds: int = 300) -> None:
        """Return when these are as they should be, `deployment/…` for example. Raises `Failed`."""
        for kind in kinds:
            self.kubectl("rollout", "status", kind, f"--timeout={seconds}s", seconds=seconds + 20)

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[int]:
        """A local port that leads to a port of a Service or Deployment. Raises `Failed`."""
        place = ("--context", self.context, "--namespace", self.namespace)
        process = subprocess.Popen(
            [program("kubectl"), *place, "port-forward", target, f":{port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield _local_port(process, target)
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


def _local_port(process: subprocess.Popen[str], target: str) -> int:
    assert process.stdout is not None
    watchdog = threading.Timer(CALL_SECONDS, process.terminate)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    match = re.search(r"127\.0\.0\.1:(\d+)", line)
    if match is None:
        raise Failed(f"kubectl port-forward {target}: {line.strip()}")
    port = int(match[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        return port


def run(*command: str, given: str | None = None, seconds: float = CALL_SECONDS) -> str:
    """The output of a command. Raises `Failed` with what it said."""
    shown = " ".join(command[:8])
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{shown} …: no end after {seconds:.0f} s") from error
    if done.returncode:
        raise Failed(f"{shown} …: {(done.stderr + done.stdout).strip()[-2000:]}")
    return done.stdout


def until(what: str, done: Callable[[], bool], *, seconds: float) -> None:
    """Return once it is so. Raises `Failed`."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise Failed(f"{what}: not after {seconds:.0f} s")
        time.sleep(1)


def names(objects: Mapping[str, Any]) -> Sequence[str]:
    """Kind and name of each object of a list."""
    return sorted(f"{each['kind']}/{each['metadata']['name']}" for each in objects["items"])
