"""The HTTP port of a process: `/metrics` for Prometheus, `/healthz` and `/readyz` for Kubernetes.

A small HTTP/1.1 server (RFC 9112) in the event loop itself, so that a probe that is answered
proves that the loop runs; a metrics server in a thread of its own would look healthy beside a
loop that hangs. Metrics are rendered in one thread, because rendering takes milliseconds and mail
must not wait for it.

Guarantees: one request per connection, answered with `Connection: close`; at most
`MAX_CONNECTIONS` at once: a new one has the oldest closed that is silent, or else the oldest that
has its answer and does not go, so that nobody holds off the probes by being slow; at most
`MAX_RENDERS` scrapes at once, others get 503; a request's head is at most `MAX_HEAD_BYTES` and must
arrive within `REQUEST_SECONDS`. Request bodies are not read. Everything here is open to whoever
reaches the port, and says nothing that must be kept secret."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from services.common.log import WARNING, event
from services.common.readiness import Readiness
from services.common.start import bind_error

__all__ = ["HttpServer", "Readiness"]

MAX_HEAD_BYTES = 8192  # Prometheus and the kubelet send under 1 KiB
MAX_CONNECTIONS = 32  # a few scrapers and the kubelet; more is a mistake or an attack
MAX_RENDERS = 8  # fewer than connections: there is always one that can be closed
REQUEST_SECONDS = 5.0
RENDER_SECONDS = 10.0  # Prometheus gives up after 10 s by default
LINGER_SECONDS = 1.0

_log = logging.getLogger(__name__)

# Creation times double the series of every counter and histogram; nothing of ours reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    allow: str = ""


class _Refused(Exception):
    """The request is answered with this status and nothing else."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.answer = _Answer(status, status.phrase.encode() + b"\n")


class HttpServer:
    """Metrics and probes of one process; `start()` binds, `stop()` closes."""

    def __init__(
        self,
        readiness: Readiness,
        *,
        host: str,
        port: int,
        setting: str = "http.port",
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.host = host
        self.port = port
        self._readiness = readiness
        self._setting = setting
        self._registry = registry
        self._connections: set[asyncio.Task[None]] = set()
        # The oldest first.
        self._silent: dict[asyncio.StreamWriter, None] = {}  # the request's head is not complete
        self._answered: dict[asyncio.StreamWriter, None] = {}  # the answer is not fetched
        self._renders = 0
        self._server: asyncio.Server | None = None
        # One thread: scrapes queue behind each other instead of multiplying their cost.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._pages: dict[str, Callable[[], _Answer]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    async def start(self) -> None:
        """Bind, and answer from now on; a port of 0 becomes the chosen one. Raises `StartError`."""
        try:
            self._server = await asyncio.start_server(
                self._connected, self.host, self.port, limit=MAX_HEAD_BYTES
            )
        except OSError as error:
            raise bind_error(self._setting, host=self.host, port=self.port, error=error) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop answering. Requests under way are dropped."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._renderer.shutdown(wait=False, cancel_futures=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._silent[writer] = None
        if len(self._silent) + len(self._answered) + self._renders > MAX_CONNECTIONS:
            self._make_room(writer)
        # A task of our own: asyncio logs an error when one that it makes is cancelled.
        connection = asyncio.create_task(self._handle(reader, writer), name="http")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    def _make_room(self, newest: asyncio.StreamWriter) -> None:
        for writers in (self._silent, self._answered):
            oldest = next(iter(writers), newest)
            if oldest is not newest:
                del writers[oldest]
                oldest.transport.abort()
                return

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS + RENDER_SECONDS + LINGER_SECONDS):
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away or was too slow; nothing is lost
        finally:
            self._silent.pop(writer, None)
            self._answered.pop(writer, None)
            writer.transport.abort()  # harmless to one that is closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = "GET"
        try:
            method, path, accept = await _request(reader)
            self._silent.pop(writer, None)
            answer = await self._answer(method, path, accept)
        except _Refused as refused:
            answer = refused.answer
        self._silent.pop(writer, None)
        self._answered[writer] = None
        writer.write(_head(answer) + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        await _linger(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def _answer(self, method: str, path: str, accept: str) -> _Answer:
        if path != "/metrics" and path not in self._pages:
            return _Answer(HTTPStatus.NOT_FOUND, b"/metrics /healthz /readyz\n")
        if method not in ("GET", "HEAD"):
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"", allow="GET, HEAD")
        if path == "/metrics":
            return await self._metrics(accept)
        return self._pages[path]()

    async def _metrics(self, accept: str) -> _Answer:
        if self._renders >= MAX_RENDERS:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE)
        encode, content_type = choose_encoder(accept)
        self._renders += 1
        render = asyncio.get_running_loop().run_in_executor(self._renderer, encode, self._registry)
        try:
            async with asyncio.timeout(RENDER_SECONDS):
                return _Answer(HTTPStatus.OK, await render, content_type)
        except TimeoutError:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE) from None
        except Exception as error:
            # A collector that fails must not take the probes with it.
            event(_log, WARNING, "metrics cannot be rendered", exc_info=True)
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR) from error
        finally:
            self._renders -= 1

    def _healthz(self) -> _Answer:
        return _Answer(HTTPStatus.OK, b"ok\n")

    def _readyz(self) -> _Answer:
        unmet = self._readiness.unmet()
        status = HTTPStatus.SERVICE_UNAVAILABLE if unmet else HTTPStatus.OK
        body = json.dumps({"ready": not unmet, "unmet": unmet}).encode() + b"\n"
        return _Answer(status, body, "application/json")


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, str]:
    """Method, path and Accept field of a request head; raises `_Refused` for what is none."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    except TimeoutError:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT) from None
    request, *fields = head.decode("latin-1").split("\r\n")
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    accept = ",".join(
        value.strip()
        for name, _, value in (field.partition(":") for field in fields)
        if name.lower() == "accept"
    )
    return words[0], words[1].partition("?")[0], accept


def _head(answer: _Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if answer.allow:
        lines.append(f"Allow: {answer.allow}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the client closes, briefly (RFC 9112 §9.6).

    Closing on unread octets resets the connection, and the answer with it.
    """
    if writer.can_write_eof():
        writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(MAX_HEAD_BYTES):
                pass
    except TimeoutError:
        pass
