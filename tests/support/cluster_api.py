"""As much of a Kubernetes API as Helm needs to install, upgrade and uninstall a chart, on loopback.

    with ClusterApi() as api:
        helm("install", …, "--kubeconfig", str(api.write_kubeconfig(folder)))

It keeps whatever objects it is given, of the kinds that it was told of, and answers discovery,
get, list by labels, create, put, patch and delete. Nothing is validated and nothing runs: pods of
a Deployment never come to be, so `--wait` would wait for ever. What Helm's `lookup` finds is what
an earlier release left here, which no rendering without a cluster can show.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlparse

import yaml

Json = dict[str, Any]

_PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?"
)
_PROTOBUF: Final = b"k8s\0"
"""What a body begins with that is the API's own envelope around a protobuf message."""
_LENGTH_DELIMITED: Final = 2
_IRREGULAR: Final = {"NetworkPolicy": "networkpolicies"}


def plural(kind: str) -> str:
    """The name of a kind in paths."""
    return _IRREGULAR.get(kind, kind.lower() + "s")


class ClusterApi:
    """A server in threads of its own, for as long as the `with` statement lasts."""

    def __init__(self, kinds: Iterable[tuple[str, str]]) -> None:
        """`kinds`: apiVersion and kind of each that is served."""
        self.kinds = sorted({*kinds, ("v1", "Secret"), ("v1", "Namespace")})
        self.objects: dict[tuple[str, str], Json] = {}
        """By plural and name; there is one namespace."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> ClusterApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def write_kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        server = f"http://127.0.0.1:{self._server.server_address[1]}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def of(self, kind: str) -> dict[str, Json]:
        """The objects of a kind by their names; without Helm's own Secrets."""
        return {
            name: found
            for (resource, name), found in self.objects.items()
            if resource == plural(kind) and not name.startswith("sh.helm.release.")
        }

    def names(self) -> set[str]:
        """Kind and name of everything that is there, without Helm's own Secrets."""
        return {f"{kind} {name}" for _, kind in self.kinds for name in self.of(kind)}

    # Answers

    def discovery(self, path: str) -> Json | None:
        """What there is, as `kubectl api-resources` asks for it; None for other paths."""
        versions = sorted({version for version, _ in self.kinds})
        groups = [version for version in versions if "/" in version]
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(v) for v in groups],
            }
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version not in versions:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural(kind),
                    "kind": kind,
                    "namespaced": kind != "Namespace",
                    "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                }
                for its_version, kind in self.kinds
                if its_version == version
            ],
        }

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Json) -> Json | None:
        """The object or list; None if there is no such thing. `HTTPStatus.CONFLICT` is a Status."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        resource, name = match["resource"], match["name"] or body.get("metadata", {}).get("name")
        if method == "GET" and match["name"] is None:
            return self._list(resource, query)
        key = (resource, str(name))
        if method in {"GET", "DELETE"}:
            return self.objects.get(key) if method == "GET" else self.objects.pop(key, None)
        if method == "POST" and key in self.objects:
            return _status(HTTPStatus.CONFLICT, "AlreadyExists")
        applied = "apply-patch" in query.get("content-type", "")
        if method == "PATCH" and not applied and key not in self.objects:
            return None
        before = self.objects.get(key, {}) if method == "PATCH" and not applied else {}
        fresh = _merged(copy.deepcopy(before), body)
        fresh.setdefault("metadata", {}).update(uid="1", resourceVersion="1")
        self.objects[key] = fresh
        return fresh

    def _list(self, resource: str, query: Mapping[str, str]) -> Json:
        wanted = dict(
            term.split("=", 1) for term in query.get("labelSelector", "").split(",") if "=" in term
        )
        items = [
            found
            for (its_resource, _), found in self.objects.items()
            if its_resource == resource
            and wanted.items() <= found["metadata"].get("labels", {}).items()
        ]
        kind = next(kind for _, kind in self.kinds if plural(kind) == resource)
        return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items}


def _group(version: str) -> Json:
    group, _, number = version.partition("/")
    preferred = {"groupVersion": version, "version": number}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def _status(code: HTTPStatus, reason: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
    }


def _merged(target: Json, patch: Json) -> Json:
    """A JSON merge patch (RFC 7396); close enough to a strategic one for Secrets."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merged(target[key], value)
        else:
            target[key] = value
    return target


def _decoded(text: bytes) -> Json:
    """A body in JSON or YAML, or one of Helm's own Secrets, which come as protobuf."""
    if not text.startswith(_PROTOBUF):
        found: Json = yaml.load(text, Loader=yaml.CSafeLoader)
        return found
    (raw,) = _fields(text.removeprefix(_PROTOBUF))[2]
    secret = _fields(raw)
    metadata = _fields(secret[1][0])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata[1][0].decode(),
            "labels": {key: value.decode() for key, value in _pairs(metadata.get(11, []))},
        },
        "data": {key: b64encode(value).decode() for key, value in _pairs(secret.get(2, []))},
        "type": secret[3][0].decode(),
    }


def _pairs(entries: Iterable[bytes]) -> list[tuple[str, bytes]]:
    found = [_fields(entry) for entry in entries]
    return [(each[1][0].decode(), each.get(2, [b""])[0]) for each in found]


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that are strings, octets or messages."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        length, at = _number(message, at)
        if tag & 7 == _LENGTH_DELIMITED:
            found.setdefault(tag >> 3, []).append(message[at : at + length])
            at += length
    return found


def _number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            return value, at


def _handler(api: ClusterApi) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            body = _decoded(text) if text and self.command != "DELETE" else {}
            url = urlparse(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            query["content-type"] = self.headers.get("Content-Type", "")
            with lock:
                found = api.discovery(url.path) or api.answer(
                    self.command, url.path, query, body or {}
                )
                found = found or _status(HTTPStatus.NOT_FOUND, "NotFound")
                octets = json.dumps(found).encode()
            self.send_response(int(found["code"]) if found.get("kind") == "Status" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at the objects."""

    return Handler
