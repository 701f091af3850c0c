"""The Secrets of one namespace, over the Kubernetes API. The only module that imports the client.

Needs of the API server: `list`, `watch`, `create` and `patch` on Secrets in that namespace; what to
import is listed by its name, so that no further verb is needed. Which API server: that of the
cluster that this process runs in, with the pod's service account; otherwise the one that the
kubeconfig (KUBECONFIG, or ~/.kube/config) names.

Guarantees: every request has a deadline; every failure is an `ApiError`, whose text has nothing of
a Secret in it; answers are never handed to the client's own code, which would log them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes_asyncio import client, config

from services.common.start import StartError

REQUEST_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 60
"""How long one watch lasts. A connection that died silently is noticed after it at the latest."""
WATCH_GRACE_SECONDS: Final = 15
PAGE_SIZE: Final = 500
MAX_LINE_OCTETS: Final = 8 * 1024 * 1024
"""One event of a watch: a Secret holds at most 1 MiB, and who wrote what of it is told besides."""
GONE: Final = 410
"""The version to watch from is too old: list again."""

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MERGE_PATCH: Final = "application/merge-patch+json"

# It logs whole answers at debug level, Secrets among them. We never let it read one; this is the
# second lock on the same door.
logging.getLogger("kubernetes_asyncio").setLevel(logging.INFO)

Json = dict[str, Any]


class ApiError(Exception):
    """The API server did not do it; the message is one line for operators."""

    def __init__(self, text: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status; 0 if there was no answer."""
        self.reason = reason
        """Kubernetes' own word for it, such as AlreadyExists."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All Secrets there are, and the version to watch on from."""

    items: tuple[Json, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch."""

    kind: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    secret: Json
    version: str


class SecretApi:
    """Secrets of one namespace that carry certain labels. `open` before anything else."""

    def __init__(self, namespace: str, *, selection: str) -> None:
        """A blank namespace is that of the pod, or of the kubeconfig's context."""
        self.namespace = namespace
        self._selection = selection
        self._core: Any = None
        self._client: Any = None

    async def open(self) -> None:
        """Find the API server; nothing is asked of it yet. Raises `StartError`."""
        settings = client.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                self.namespace = self.namespace or _NAMESPACE_FILE.read_text().strip()
            else:
                namespace = await _load_kubeconfig(settings)
                self.namespace = self.namespace or namespace
        except (config.ConfigException, OSError) as error:
            raise StartError(
                "keys.store: kubernetes needs a service account in a cluster, or a kubeconfig:"
                f" {error}"
            ) from error
        self._client = client.ApiClient(settings)
        self._core = client.CoreV1Api(self._client)

    async def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()

    async def list(self) -> Listing:
        """All selected Secrets, page by page. Raises `ApiError`."""
        items: list[Json] = []
        token = ""
        while True:
            page = await self._ask(
                self._core.list_namespaced_secret(
                    self.namespace,
                    label_selector=self._selection,
                    limit=PAGE_SIZE,
                    _continue=token or None,
                    _preload_content=False,
                    _request_timeout=REQUEST_SECONDS,
                )
            )
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))

    async def watch(self, version: str) -> AsyncIterator[Change]:
        """Changes after `version`, until the server ends the watch. Raises `ApiError`."""
        with _failures():
            response = await self._core.list_namespaced_secret(
                self.namespace,
                label_selector=self._selection,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                watch=True,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(
                    total=WATCH_SECONDS + WATCH_GRACE_SECONDS, connect=REQUEST_SECONDS
                ),
            )
            try:
                await _check(response)
                async for line in _lines(response.content):
                    yield _change(line)
            finally:
                response.close()

    async def find(self, name: str) -> Json | None:
        """One Secret, with whatever labels; None if there is none. Raises `ApiError`."""
        page = await self._ask(
            self._core.list_namespaced_secret(
                self.namespace,
                field_selector=f"metadata.name={name}",
                _preload_content=False,
                _request_timeout=REQUEST_SECONDS,
            )
        )
        items = page.get("items") or []
        return items[0] if items else None

    async def create(self, secret: Json) -> Json:
        """Make a Secret; the object as it was stored. Raises `ApiError`."""
        return await self._ask(
            self._core.create_namespaced_secret(
                self.namespace, secret, _preload_content=False, _request_timeout=REQUEST_SECONDS
            )
        )

    async def patch(self, name: str, patch: Json) -> Json:
        """Merge `patch` into a Secret; the object as it was stored. Raises `ApiError`."""
        return await self._ask(
            self._core.patch_namespaced_secret(
                name,
                self.namespace,
                patch,
                _content_type=_MERGE_PATCH,
                _preload_content=False,
                _request_timeout=REQUEST_SECONDS,
            )
        )

    async def _ask(self, request: Any) -> Json:
        with _failures():
            response = await request
            try:
                await _check(response)
                answer = json.loads(await response.read())
            finally:
                response.close()
        if not isinstance(answer, dict):
            raise ApiError("the API server answered with something that is no object")
        return answer


@contextmanager
def _failures() -> Iterator[None]:
    """What a connection can do to us, as `ApiError`."""
    try:
        yield
    except TimeoutError as error:
        raise ApiError("the API server does not answer in time") from error
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
        raise ApiError(f"the API server cannot be reached ({type(error).__name__})") from error
    except ValueError:
        # Without the cause: it quotes what it could not read.
        raise ApiError("the API server's answer makes no sense") from None


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise `ApiError` for a refusal."""
    if response.status < 300:
        return
    try:
        status = json.loads(await response.read())
    except ValueError:
        status = {}
    raise _refusal(response.status, status if isinstance(status, dict) else {})


def _refusal(code: int, status: Json) -> ApiError:
    reason = str(status.get("reason", ""))
    text = f"the API server answers {code} {reason}".rstrip()
    if code in (401, 403):
        # Says which verb on what is not allowed to whom, which is what an operator needs.
        text = f"{text}: {status.get('message', '')}"
    return ApiError(text, status=code, reason=reason)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of an answer as they come; the reader's own method has a limit of 128 KiB."""
    rest = bytearray()
    async for block in content.iter_any():
        rest += block
        while (end := rest.find(b"\n")) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
        if len(rest) > MAX_LINE_OCTETS:
            raise ApiError("the API server tells of a change that is too long")
    if rest:
        yield bytes(rest)


def _change(line: bytes) -> Change:
    event = json.loads(line)
    secret = event["object"] if isinstance(event, dict) and "object" in event else None
    if not isinstance(secret, dict):
        raise ApiError("the API server told of a change of nothing")
    if event.get("type") == "ERROR":
        raise _refusal(int(secret.get("code") or 0), secret)
    metadata = secret.get("metadata") or {}
    return Change(str(event.get("type")), secret, str(metadata.get("resourceVersion", "")))


async def _load_kubeconfig(settings: client.Configuration) -> str:
    """Take the current context's server and credentials; its namespace. Raises `OSError` and
    `ConfigException`."""
    path = _kubeconfig()
    await config.load_kube_config(config_file=path, client_configuration=settings)
    _, active = config.list_kube_config_contexts(config_file=path)
    return str((active or {}).get("context", {}).get("namespace") or "default")


def _kubeconfig() -> str:
    """The kubeconfig's path. Raises `OSError`, since a missing one is a riddle to the client."""
    path = Path(os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser()
    path.open("rb").close()
    return str(path)
