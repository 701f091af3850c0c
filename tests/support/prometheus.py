"""Debian's Prometheus with an installation's four services as its targets, and what it answers.

The targets have the labels that the chart's PodMonitor gives them. Life cycle: `start` → running →
`close`.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.installation import SERVICES, Installation
from tests.support.ports import free_port
from tests.support.programs import program

NAMESPACE: Final = "mail"
SCRAPE_SECONDS: Final = 1
_START_DEADLINE_SECONDS: Final = 60.0
_ASK_AGAIN_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Curve:
    """One series of an answer: what its labels are, and its points as (time, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class Prometheus:
    """One server. Not started by the constructor."""

    def __init__(
        self, folder: Path, installation: Installation, *, rules: Iterable[Path] = ()
    ) -> None:
        self._folder = folder
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        targets = [
            {
                "targets": [f"127.0.0.1:{installation.ports[f'{service}-http']}"],
                "labels": {"namespace": NAMESPACE, "pod": f"{service}-0"},
            }
            for service in SERVICES
        ]
        config = {
            "global": {
                "scrape_interval": f"{SCRAPE_SECONDS}s",
                "evaluation_interval": f"{SCRAPE_SECONDS}s",
            },
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "gatepost", "static_configs": targets}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def start(self) -> None:
        """Start, and return when every target was read. Raises `RuntimeError` with its log."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        log = self._folder / "prometheus.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address={self._url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_DEADLINE_SECONDS
        while not self._reads_all():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text(encoding="utf-8")[-3000:])
            time.sleep(_ASK_AGAIN_SECONDS)

    def _reads_all(self) -> bool:
        try:
            # While it opens its storage it listens already, and answers 503.
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10):
                pass
        except (urllib.error.URLError, OSError):
            return False
        return len(self.now("up == 1")) == len(SERVICES)

    def now(self, expression: str) -> list[Curve]:
        """The series that an expression gives at this moment, with their only point."""
        found = self._ask("query", query=expression)["result"]
        return [Curve(each["metric"], [_point(each["value"])]) for each in found]

    def since(self, expression: str, begin: float, *, step: float = 1.0) -> list[Curve]:
        """The series that it gave from then on, without the points that are no numbers."""
        answer = self._ask("query_range", query=expression, start=begin, end=time.time(), step=step)
        curves = [
            Curve(
                each["metric"],
                [point for value in each["values"] if not math.isnan((point := _point(value))[1])],
            )
            for each in answer["result"]
        ]
        return [curve for curve in curves if curve.points]

    def _ask(self, what: str, **parameters: str | float) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: dict[str, Any] = json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from error
        return found

    def close(self) -> None:
        """End it. Harmless twice."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


def _point(value: Sequence[Any]) -> tuple[float, float]:
    return float(value[0]), float(value[1])
