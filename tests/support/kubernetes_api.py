"""The Secrets of an API server, over real HTTP on loopback, as faithful as the keys store needs it.

    with KubernetesApi() as api:
        environment = {"KUBECONFIG": str(api.write_kubeconfig(folder))}

It keeps what the real one keeps: resource versions that rise with every change, conflicts, names
and labels that have to be valid, base64 that has to decode, label selection (an object that ceases
to match is DELETED for whoever watches), pages, watches that end, bookmarks, histories that are
compacted (410), tokens (401) and rules (403). `edit` and `remove` are `kubectl edit` and `kubectl
delete` by somebody else. A stopped server can be started again and has kept everything.

It lives in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.support.kubernetes_rules import Json, Refused, validate
from tests.support.ports import free_port

NAMESPACE = "mail-keys"
TOKEN = "a-service-account-token"
VERBS = frozenset({"list", "watch", "create", "patch"})
"""Those of the chart's Role."""

_START_SECONDS = 30.0
_TERM = re.compile(r"([^=!,()\s]+)(?:=([^=,()\s]*)| in \(([^()]*)\))(?:,|$)")
"""A term of a label selector, as far as anybody here uses them."""


class KubernetesApi:
    """A small API server. `verbs`, `token`, `max_watch_seconds` may be changed while it runs."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self._tls = tls
        self.verbs = set(VERBS)
        self.token = TOKEN
        self.max_watch_seconds = 3600.0
        self.failing = 0
        """This HTTP status instead of any answer; 0: none."""
        self.requests: list[tuple[str, str]] = []
        """Verb and name, in order of arrival."""
        self._objects: dict[str, Json] = {}
        self._history: list[tuple[int, Json | None, Json | None]] = []
        """Version, the object before and after."""
        self._version = 1000
        self._compacted = 1000
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # For tests

    def start(self) -> None:
        """Serve; a server that was stopped serves what it had."""
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        if not started.wait(_START_SECONDS):
            raise RuntimeError("the API server did not start")

    def stop(self) -> None:
        """Close everything at once, watches too."""
        if self._thread is not None and self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_START_SECONDS)
            self._thread = None

    def __enter__(self) -> KubernetesApi:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def write_kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "clusters": [
                        {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
                    ],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [
                        {
                            "name": "here",
                            "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE},
                        }
                    ],
                }
            )
        )
        return path

    def secrets(self) -> dict[str, Json]:
        """All objects by name."""
        return copy.deepcopy(self._objects)

    def edit(self, name: str, change: Callable[[Json], None]) -> None:
        """`kubectl edit`: change an object in place, or make one."""

        def apply() -> None:
            edited = copy.deepcopy(self._objects.get(name, _empty(name)))
            change(edited)
            self._store(name, edited)

        self._on_loop(apply)

    def remove(self, name: str) -> None:
        """`kubectl delete`."""
        self._on_loop(lambda: self._store(name, None))

    def compact(self) -> None:
        """Forget the history: whoever watches, or wants to from before now, is answered 410."""

        def apply() -> None:
            self._version += 1
            self._compacted = self._version
            self._history.clear()
            self._announce()

        self._on_loop(apply)

    def _on_loop(self, work: Callable[[], object]) -> None:
        """Run on the server's thread if it runs, and wait until it is done."""
        if self._thread is None or self._loop is None:
            work()
            return
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(_START_SECONDS)

    # The server

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._changed = asyncio.Event()
        app = web.Application()
        path = "/api/v1/namespaces/{namespace}/secrets"
        app.router.add_get(path, self._guarded("list", self._list))
        app.router.add_post(path, self._guarded("create", self._create))
        app.router.add_patch(path + "/{name}", self._guarded("patch", self._patch))
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        started.set()
        await self._stopping.wait()
        self._announce()
        await runner.cleanup()

    def _guarded(self, verb: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            asked = "watch" if request.query.get("watch") else verb
            name = request.match_info.get("name", "")
            self.requests.append((asked, name))
            try:
                self._admit(request, asked, name)
                answer: web.StreamResponse = await handler(request)
            except Refused as refused:
                return web.json_response(refused.status, status=refused.status["code"])
            return answer

        return handle

    def _admit(self, request: web.Request, verb: str, name: str) -> None:
        if self.failing:
            raise Refused(self.failing, "InternalError", "etcdserver: request timed out")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        namespace = request.match_info["namespace"]
        if verb not in self.verbs or namespace != NAMESPACE:
            user = 'User "system:serviceaccount:mail:gatepost-keys"'
            named = f'secrets "{name}"' if name else "secrets"
            where = f'resource "secrets" in API group "" in the namespace "{namespace}"'
            raise Refused(403, "Forbidden", f"{named} is forbidden: {user} cannot {verb} {where}")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        selection = request.query.get("labelSelector", "")
        name = _named(request.query.get("fieldSelector", ""))
        found = [
            each
            for _, each in sorted(self._objects.items())
            if _matches(each, selection) and name in ("", each["metadata"]["name"])
        ]
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(found) or 1
        page, rest = found[start : start + limit], found[start + limit :]
        metadata: Json = {"resourceVersion": str(self._version)}
        if rest:
            metadata |= {"continue": str(start + limit), "remainingItemCount": len(rest)}
        answer = {"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": page}
        return web.json_response(answer)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        selection = request.query.get("labelSelector", "")
        version = int(request.query.get("resourceVersion") or 0)
        seconds = min(float(request.query.get("timeoutSeconds") or 1800), self.max_watch_seconds)
        try:
            async with asyncio.timeout(seconds):
                while self._stopping is not None and not self._stopping.is_set():
                    changed = self._changed
                    version = await self._tell(response, selection, version)
                    await changed.wait()
        except TimeoutError:
            if request.query.get("allowWatchBookmarks"):
                bookmark = {"kind": "Secret", "metadata": {"resourceVersion": str(version)}}
                await _send(response, "BOOKMARK", bookmark)
        except Refused as refused:
            await _send(response, "ERROR", refused.status)
        return response

    async def _tell(self, response: web.StreamResponse, selection: str, version: int) -> int:
        if version < self._compacted:
            text = f"too old resource version: {version} ({self._compacted})"
            raise Refused(410, "Expired", text)
        for number, before, after in tuple(self._history):
            if number <= version:
                continue
            was = before is not None and _matches(before, selection)
            if after is not None and _matches(after, selection):
                await _send(response, "MODIFIED" if was else "ADDED", after)
            elif was and before is not None:
                gone = copy.deepcopy(before)
                gone["metadata"]["resourceVersion"] = str(number)
                await _send(response, "DELETED", gone)
            version = number
        return version

    async def _create(self, request: web.Request) -> web.StreamResponse:
        secret = await _body(request, "application/json")
        metadata = secret.get("metadata", {})
        name = metadata.get("name", "")
        if metadata.get("resourceVersion"):
            text = "resourceVersion should not be set on objects to be created"
            raise Refused(400, "BadRequest", text)
        validate(secret)
        if name in self._objects:
            raise Refused(409, "AlreadyExists", f'secrets "{name}" already exists')
        return web.json_response(self._store(name, secret), status=201)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        patch = await _body(request, "application/merge-patch+json")
        name = request.match_info["name"]
        current = self._existing(name)
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != current["metadata"]["resourceVersion"]:
            text = "the object has been modified; please apply your changes to the latest version"
            raise Refused(
                409, "Conflict", f'Operation cannot be fulfilled on secrets "{name}": {text}'
            )
        secret = _merged(copy.deepcopy(current), patch)
        if secret["metadata"].get("name") != name:
            raise Refused(400, "BadRequest", "the name of the object does not match the URL")
        validate(secret, current)
        return web.json_response(self._store(name, secret))

    def _existing(self, name: str) -> Json:
        if name not in self._objects:
            raise Refused(404, "NotFound", f'secrets "{name}" not found')
        return self._objects[name]

    def _store(self, name: str, secret: Json | None) -> Json:
        self._version += 1
        before = self._objects.pop(name, None)
        if secret is not None:
            secret = copy.deepcopy(secret)
            secret["metadata"]["resourceVersion"] = str(self._version)
            secret["metadata"].setdefault("uid", f"uid-{self._version}")
            secret["metadata"]["namespace"] = NAMESPACE
            self._objects[name] = secret
        self._history.append((self._version, before, secret))
        self._announce()
        return secret or {}

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _send(response: web.StreamResponse, kind: str, content: Json) -> None:
    await response.write(json.dumps({"type": kind, "object": content}).encode() + b"\n")


async def _body(request: web.Request, content_type: str) -> Json:
    if request.content_type != content_type:
        raise Refused(415, "UnsupportedMediaType", f"not {content_type}")
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise Refused(400, "BadRequest", "not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "BadRequest", "not an object")
    return body


def _empty(name: str) -> Json:
    return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "type": "Opaque"}


def _matches(secret: Json, selection: str) -> bool:
    labels = secret["metadata"].get("labels") or {}
    end = 0
    for term in _TERM.finditer(selection):
        if term.start() != end:
            break
        end = term.end()
        name, value, values = term.groups()
        wanted = [value] if values is None else [each.strip() for each in values.split(",")]
        if labels.get(name) not in wanted:
            return False
    if end != len(selection):
        raise Refused(400, "BadRequest", f"unable to parse requirement: {selection[end:]}")
    return True


def _named(selection: str) -> str:
    """The name that a field selector wants; blank for any."""
    field, _, name = selection.partition("=")
    if field not in ("", "metadata.name"):
        raise Refused(400, "BadRequest", f"field label not supported: {field}")
    return name


def _merged(target: Json, patch: Mapping[str, Any]) -> Json:
    """RFC 7396."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            target[name] = _merged(target.get(name) or {}, value)
        else:
            target[name] = value
    return target
