"""What the test brings into the namespace besides the release: a sink, senders, their scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

INSIDE: Final = Path(__file__).parent / "inside"
SINK: Final = "cluster-test-sink"
SINK_PORT: Final = 2600
DOMAIN: Final = "cluster-test.invalid"
"""Reserved (RFC 2606): no mail of people has it."""

Object = dict[str, Any]


def namespace(name: str) -> Object:
    """A namespace that admits only what is "restricted"."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "gatepost-cluster-test": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def scripts() -> Object:
    """The scripts of the pods."""
    data = {path.name: path.read_text(encoding="utf-8") for path in INSIDE.glob("*.py")}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-test"},
        "data": data,
    }


def sink(image: str) -> Sequence[Object]:
    """The mail store behind `DOMAIN`, and the name that it is reached at."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SINK},
        "spec": {
            # A Service without an address of its own: network policies see the pod's port.
            "clusterIP": "None",
            "selector": {"app": SINK},
            "ports": [{"name": "lmtp", "port": SINK_PORT}],
        },
    }
    return [service, _pod(SINK, image, ["sink.py", str(SINK_PORT)])]


def sender(name: str, image: str, arguments: Sequence[str]) -> Object:
    """A pod that sends; see `inside/send.py`."""
    return _pod(name, image, ["send.py", *arguments])


def _pod(name: str, image: str, command: Sequence[str]) -> Object:
    script, *arguments = command
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "script",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-u", f"/scripts/{script}", *arguments],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "volumeMounts": [
                        {"name": "scripts", "mountPath": "/scripts", "readOnly": True},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "scripts", "configMap": {"name": "cluster-test"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
