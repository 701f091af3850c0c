"""The HTTP port over a real socket: what Prometheus and the kubelet see, and what others get."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric

from services.common import http
from services.common.http import HttpServer
from services.common.readiness import Readiness
from services.common.start import StartError

_LARGE = bytes(64 * 1024 * 1024)  # more than the sockets of both sides take


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: str


@asynccontextmanager
async def serving(
    readiness: Readiness | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[HttpServer]:
    more = {} if registry is None else {"registry": registry}
    server = HttpServer(readiness or Readiness(), host="127.0.0.1", port=0, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def exchange(server: HttpServer, request: bytes) -> Answer:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), fields, body.decode())


async def get(server: HttpServer, path: str, *fields: str) -> Answer:
    lines = [f"GET {path} HTTP/1.1", "Host: test", *fields, "", ""]
    return await exchange(server, "\r\n".join(lines).encode())


async def test_probes_tell_alive_and_ready_apart() -> None:
    readiness = Readiness()
    queue = readiness.require("queue", reason="no connection to NATS")
    async with serving(readiness) as server:
        assert (await get(server, "/healthz")).status == 200
        answer = await get(server, "/readyz")
        assert answer.status == 503
        assert json.loads(answer.body) == {
            "ready": False,
            "unmet": {"queue": "no connection to NATS"},
        }
        queue.meet()
        answer = await get(server, "/readyz?verbose")
        assert (answer.status, json.loads(answer.body)) == (200, {"ready": True, "unmet": {}})


async def test_metrics_pass_promtool() -> None:
    import services.common.rpc.guard
    import services.common.rpc.tokens
    import services.common.tls  # noqa: F401 - for their metrics

    async with serving() as server:
        answer = await get(server, "/metrics")
    assert answer.status == 200
    assert answer.fields["content-type"].startswith("text/plain")
    for name in ("gatepost_rpc_seconds", "process_open_fds", "python_info", "gatepost_tls_"):
        assert name in answer.body
    process = await asyncio.create_subprocess_exec(
        "promtool",
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(answer.body.encode())
    assert (process.returncode, output.decode()) == (0, "")


async def test_openmetrics_for_those_who_ask() -> None:
    async with serving() as server:
        accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        answer = await get(server, "/metrics", accept)
    assert answer.fields["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /healthz HTTP/1.0\r\n\r\n", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/2\r\n\r\n", 400),
        (b"EHLO client.test\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS on a plain port
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_odd_requests_get_an_answer(request_: bytes, status: int) -> None:
    async with serving() as server:
        answer = await exchange(server, request_)
        assert answer.status == status
        assert answer.fields["connection"] == "close"
        assert int(answer.fields["content-length"]) == len(answer.body)
        if status == 405:
            assert answer.fields["allow"] == "get, head"


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as server:
        answer = await exchange(server, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.body, answer.fields["content-length"]) == (200, "", "3")


async def test_slow_request_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.1)
    async with serving() as server:
        answer = await exchange(server, b"GET /healthz HTT")
    assert answer.status == 408


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\n\r\n"])
async def test_slow_connections_do_not_hold_off_the_probes(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(http, "LINGER_SECONDS", 600.0)
    async with serving() as server:
        slow = [await asyncio.open_connection(server.host, server.port) for _ in range(40)]
        for _, writer in slow:
            with contextlib.suppress(ConnectionError):  # it may be closed already
                writer.write(sent)
                await writer.drain()
        assert [(await get(server, "/healthz")).status for _ in range(5)] == [200] * 5
        # The oldest gave way, and one of the newest did not.
        with contextlib.suppress(ConnectionError):
            await slow[0][0].read()
        assert slow[0][0].at_eof() or slow[0][0].exception() is not None
        assert not slow[-1][1].is_closing()
        assert not slow[-1][0].at_eof()
        for _, writer in slow:
            writer.close()


async def test_a_client_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(http, "RENDER_SECONDS", 0.1)
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(HttpServer, "_healthz", lambda _: http._Answer(HTTPStatus.OK, _LARGE))
    async with serving() as server:
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1)
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        await writer.drain()
        received = 0
        while not server._answered:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        while server._connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(1 << 20):
                received += len(octets)
        assert received < len(_LARGE)
        writer.close()


async def test_client_that_vanishes_leaves_nothing() -> None:
    async with serving() as server:
        for _ in range(3):
            _, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET /metrics HTTP/1.1\r\n")
            writer.transport.abort()
        assert (await get(server, "/healthz")).status == 200


async def test_stop_drops_connections_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        await reader.read()  # answered, and the server waits for us to close
        half, other = await asyncio.open_connection(server.host, server.port)
        assert (await get(server, "/healthz")).status == 200  # so the half one was taken up
        await server.stop()
        assert await half.read() == b""
        writer.close()
        other.close()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


class _Broken:
    def collect(self) -> Iterator[Metric]:
        raise RuntimeError("collector")


async def test_broken_collector_does_not_take_the_probes_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = CollectorRegistry()
    async with serving(registry=registry) as server:
        registry._collector_to_names[_Broken()] = []
        assert (await get(server, "/metrics")).status == 500
        assert (await get(server, "/healthz")).status == 200
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "metrics cannot be rendered"
    ]


async def test_rendering_does_not_hold_up_the_loop() -> None:
    """While a slow collector renders in its thread, probes are answered."""
    import threading

    release = threading.Event()

    class Slow:
        def collect(self) -> Iterator[Metric]:
            release.wait(10)
            return iter(())

    registry = CollectorRegistry()
    Counter("gatepost_test_total", "For this test.", registry=registry)
    registry._collector_to_names[Slow()] = []
    async with serving(registry=registry) as server:
        scrape = asyncio.ensure_future(get(server, "/metrics"))
        try:
            assert (await get(server, "/healthz")).status == 200
            assert not scrape.done()
        finally:
            release.set()
        assert "gatepost_test_total 0.0" in (await scrape).body


async def test_scrapes_beyond_the_limit_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()

    class Slow:
        def collect(self) -> Iterator[Metric]:
            release.wait(10)
            return iter(())

    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http, "MAX_RENDERS", 2)
    registry = CollectorRegistry()
    registry._collector_to_names[Slow()] = []
    async with serving(registry=registry) as server:
        scrapes = [asyncio.ensure_future(get(server, "/metrics")) for _ in range(4)]
        try:
            done, pending = await asyncio.wait(
                scrapes, timeout=8, return_when=asyncio.FIRST_COMPLETED
            )
            assert (await get(server, "/healthz")).status == 200
        finally:
            release.set()
        assert {scrape.result().status for scrape in done} == {503}
        assert sorted([(await scrape).status for scrape in scrapes]) == [200, 200, 503, 503]
        assert pending


async def test_busy_port_names_the_setting() -> None:
    async with serving() as server:
        second = HttpServer(
            Readiness(), host="127.0.0.1", port=server.port, setting="policy.http.port"
        )
        with pytest.raises(StartError, match=rf"^policy.http.port: 127.0.0.1:{server.port} is in"):
            await second.start()


async def test_foreign_address_names_the_setting() -> None:
    server = HttpServer(Readiness(), host="192.0.2.1", port=0, setting="http.host")
    with pytest.raises(StartError, match=r"^http.host: 192.0.2.1 is not an address of this"):
        await server.start()
