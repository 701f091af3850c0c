"""The chart as Helm renders it: objects of Kubernetes, and Helm's own words when it refuses.

Rendered without a cluster, so Secrets are as a first installation makes them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.programs import program

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "gatepost"
RELEASE: Final = "post"
NAMESPACE: Final = "mail"
NEWEST: Final = "helm"
OLDEST: Final = "helm3"
SERVICES: Final = ("ingress", "policy", "delivery", "keys")

Manifest = Mapping[str, Any]


class Refused(Exception):
    """Helm did not render; the text is what a user reads."""


def helm(*arguments: str, name: str = NEWEST, given: str = "") -> str:
    """What Helm prints. Raises `Refused`."""
    done = subprocess.run(
        [program(name), *arguments],
        check=False,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@lru_cache(maxsize=64)
def _rendered(values: str, files: Sequence[str], name: str) -> Chart:
    options = [option for file in files for option in ("--values", file)]
    place = ("--namespace", NAMESPACE, RELEASE, str(CHART))
    return Chart(helm("template", *options, "--values", "-", *place, name=name, given=values))


class Chart:
    """The objects of one rendering."""

    def __init__(self, text: str) -> None:
        # libyaml's loader: a rendering has 2,500 lines, and there are many of them.
        found = yaml.load_all(text, Loader=yaml.CSafeLoader)
        self.objects: tuple[Manifest, ...] = tuple(each for each in found if each)

    def of(self, *kinds: str) -> list[Manifest]:
        """The objects of some kinds."""
        return [each for each in self.objects if each["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        """The object of this kind whose name, without the release's, begins so."""
        wanted = f"{RELEASE}-gatepost-{name}"
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"] == wanted]
        return found

    def config_text(self, component: str) -> str:
        """The gatepost.yaml of a component."""
        return str(self.one("ConfigMap", component)["data"]["gatepost.yaml"])

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Every pod or pod template: its component, and metadata and spec."""
        for each in self.objects:
            if each["kind"] == "Pod":
                pod: Manifest = each
            elif each["kind"] in {"Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob"}:
                pod = each["spec"]["template"]
            else:
                continue
            yield pod["metadata"]["labels"]["app.kubernetes.io/component"], pod

    def pod(self, component: str) -> Manifest:
        """The pod of a component."""
        (found,) = [pod for name, pod in self.pods() if name == component]
        return found


def render(
    values: Mapping[str, Any] | None = None, *, files: Sequence[str] = (), name: str = NEWEST
) -> Chart:
    """Render with these values over values files of the chart. Raises `Refused`.

    What was rendered before is not rendered again: leave it as it is.
    """
    paths = tuple(str(CHART / file) for file in files)
    return _rendered(yaml.safe_dump(dict(values or {})), paths, name)


def container(pod: Manifest) -> Manifest:
    """A pod's only container."""
    (found,) = pod["spec"]["containers"]
    return dict(found)
