"""`make cluster-test`: Gatepost on the cluster that the current kubeconfig names.

It installs the chart into a namespace of its own, tries it (see `steps.py`), and removes the
namespace again, whatever happened. It touches nothing else. At a terminal it asks before it begins:
the kubeconfig may name another cluster than one thinks. The image has to be on the nodes, or where
they can pull it; into a cluster of kind it is loaded from this machine, if it is here.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
import time
import tomllib
from typing import Final

from tests.cluster.cluster import Cluster, Failed, program, run
from tests.cluster.steps import STEPS, Run
from tests.support.chart import ROOT
from tests.support.programs import extend_search_path

KIND: Final = "kind-"
"""What the names of kind's contexts begin with."""


def main() -> int:
    extend_search_path()
    options = arguments()
    try:
        context = options.context or run(program("kubectl"), "config", "current-context").strip()
    except Failed as error:
        print(f"cluster-test: {error}", file=sys.stderr)
        return 2
    print(f"cluster-test: context {context}, image {options.image}")
    print(f"  in the namespace {options.namespace}, which is removed again")
    if sys.stdin.isatty() and not options.yes and input("  Go on? [y/N] ").lower() != "y":
        return 2
    cluster = Cluster(context=context, namespace=options.namespace)
    state = Run(
        cluster=cluster,
        image=options.image,
        release=options.release,
        storage_class=options.storage_class,
        values=options.values,
    )
    try:
        begin(cluster, options)
        return tried(state)
    except Failed as error:
        print(f"cluster-test: {error}", file=sys.stderr)
        return 2
    finally:
        end(cluster, keep=options.keep)


def arguments() -> argparse.Namespace:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parser = argparse.ArgumentParser(prog="make cluster-test ARGS=", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--context", default="", help="of the kubeconfig; blank: the current one")
    parser.add_argument(
        "--namespace",
        default=f"gatepost-test-{secrets.token_hex(3)}",
        help="one that does not exist yet",
    )
    parser.add_argument("--release", default="gatepost")
    parser.add_argument("--image", default=f"gatepost:{project['version']}", help="with its tag")
    parser.add_argument(
        "--kind",
        default="",
        metavar="CLUSTER",
        help="load the image into this cluster of kind first; blank: the one of the context",
    )
    parser.add_argument(
        "--archive", default="", metavar="FILE", help="with --kind: an image archive to load"
    )
    parser.add_argument("--storage-class", default="", help="of NATS's volume; blank: the default")
    parser.add_argument("--values", action="append", default=[], help="a values file of yours")
    parser.add_argument("--keep", action="store_true", help="leave the namespace for a look")
    return parser.parse_args()


def begin(cluster: Cluster, options: argparse.Namespace) -> None:
    """Everything that has to be so before anything is made. Raises `Failed`."""
    version = cluster.kubectl("version", "--output", "yaml")
    print("\n".join(line for line in version.splitlines() if "gitVersion" in line))
    if cluster.kubectl("get", "namespace", cluster.namespace, "--ignore-not-found").strip():
        # Not ours, so not ours to remove.
        options.keep = True
        raise Failed(f"the namespace {cluster.namespace} exists already; name another one")
    if options.kind:
        load(options.kind, options)
    elif cluster.context.startswith(KIND) and shutil.which("kind"):
        try:
            load(cluster.context.removeprefix(KIND), options)
        except Failed as error:
            # It may be on the nodes already.
            print(f"cluster-test: the image is not loaded: {error}", file=sys.stderr)


def load(kind: str, options: argparse.Namespace) -> None:
    """Have the image on the nodes of a cluster of kind. Raises `Failed`."""
    what = (
        ("image-archive", options.archive) if options.archive else ("docker-image", options.image)
    )
    run(program("kind"), "load", *what, "--name", kind, seconds=300)


def tried(state: Run) -> int:
    """Take the steps until one fails; the exit code."""
    for step in STEPS:
        began = time.monotonic()
        print(f"  {step.__name__:<12}", end="", flush=True)
        try:
            said = step(state)
        except Failed as error:
            print(f" FAILED after {time.monotonic() - began:.0f} s\n{error}")
            tell(state.cluster)
            return 1
        print(f" {time.monotonic() - began:4.0f} s  {said}")
    print("cluster-test: passed")
    return 0


def tell(cluster: Cluster) -> None:
    """What helps to understand a failure."""
    for command in (
        ("get", "pods,jobs,persistentvolumeclaims", "--output", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("describe", "pods", "--selector", "app.kubernetes.io/name=gatepost"),
        (
            "logs",
            "--selector",
            "app.kubernetes.io/name=gatepost",
            "--all-containers",
            "--tail=40",
            "--prefix",
            "--ignore-errors",
            "--max-log-requests=50",
        ),
    ):
        print(f"--- kubectl {' '.join(command)}")
        try:
            print(cluster.kubectl(*command)[-15000:])
        except Failed as error:
            print(error)


def end(cluster: Cluster, *, keep: bool) -> None:
    """Remove the namespace and all in it, if it is ours."""
    try:
        label = ("--selector", "gatepost-cluster-test=true", "--output", "name")
        ours = cluster.kubectl("get", "namespaces", *label).split()
        if f"namespace/{cluster.namespace}" not in ours:
            return
        if keep:
            print(f"cluster-test: left for a look: kubectl delete namespace {cluster.namespace}")
            return
        cluster.kubectl(*("delete", "namespace", cluster.namespace, "--timeout=240s"), seconds=260)
    except (Failed, subprocess.SubprocessError) as error:
        print(f"cluster-test: NOT CLEANED UP: {error}", file=sys.stderr)


sys.exit(main())
