"""MTA-STS policies over HTTPS: what is fetched, what is refused, and who is never asked."""

import asyncio
import ssl
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from services.delivery.smtp.tls_context import authenticating
from services.delivery.tls.https import Https
from services.delivery.tls.report import TlsResult
from services.delivery.tls.sts_fetch import FetchFailed, PolicyHosts
from services.delivery.tls.sts_policy import MAX_POLICY_OCTETS
from tests.support.policy_host import Answer, PolicyHost, policy_text, response
from tests.support.resolver import FakeResolver
from tests.support.tls_chains import Issued

LOOPBACK = (ip_network("127.0.0.0/8"),)
POLICY = policy_text("enforce", "mx.a.test")
HOST = "mta-sts.a.test"


@dataclass(frozen=True)
class Authority:
    """Who certifies the policy host."""

    root: Issued
    file: Path

    def context(self) -> ssl.SSLContext:
        """What delivery verifies with."""
        return authenticating(self.file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    root = Issued.root("root")
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_bytes(root.pem)
    return Authority(root, file)


async def fetch(
    host: PolicyHost, authority: Authority, *, seconds: float = 10.0, address: str = "127.0.0.1"
) -> bytes:
    resolver = FakeResolver({(HOST, "AAAA" if ":" in address else "A"): [address]})
    hosts = PolicyHosts(
        Https(
            resolver,
            allowed=lambda: LOOPBACK,
            context=authority.context,
            port=host.port,
            seconds=seconds,
        )
    )
    return await hosts.fetch("a.test")


async def failure(
    answer: Answer, authority: Authority, *, leaf: Issued | None = None, seconds: float = 10.0
) -> tuple[FetchFailed, PolicyHost]:
    """Why there is no policy, and the server that was asked."""
    shown = leaf or authority.root.issue(HOST)
    async with PolicyHost(shown.server_context(), answer) as host:
        with pytest.raises(FetchFailed) as caught:
            await fetch(host, authority, seconds=seconds)
    return caught.value, host


@pytest.mark.parametrize(
    "answer",
    [
        response(POLICY),
        response(POLICY, kind="text/plain; charset=utf-8"),
        response(POLICY, kind="Text/Plain"),
        response(POLICY, "Content-Encoding: identity", "Set-Cookie: a=b"),
        # Freshness is the policy's own matter (RFC 8461 §3.3).
        response(POLICY, "Cache-Control: no-store", "Expires: 0"),
        response(POLICY).replace(b"Content-Length", b"Connection: close\r\nX-Length"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(POLICY):x}\r\n{POLICY}\r\n0\r\n\r\n".encode(),
    ],
    ids=["plain", "charset", "capitals", "identity", "no-store", "until-close", "chunked"],
)
async def test_a_policy_is_fetched(authority: Authority, answer: bytes) -> None:
    async with PolicyHost(authority.root.issue(HOST).server_context(), answer) as host:
        assert await fetch(host, authority) == POLICY.encode()
    assert host.requests == [
        ("GET /.well-known/mta-sts.txt HTTP/1.1", f"{HOST}:{host.port}"),
    ]


def _redirect(status: str) -> bytes:
    return response(POLICY, f"Location: https://{HOST}/else", status=status)


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
    for _ in range(10_000):
        writer.write(b"mx: a.test\r\n" * 1000)
        await writer.drain()


async def _endless_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(f"X-{number}: {'x' * 100}\r\n".encode())
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "result", "text"),
    [
        (_redirect("301 Moved"), TlsResult.STS_POLICY_FETCH_ERROR, "status 301"),
        (_redirect("302 Found"), TlsResult.STS_POLICY_FETCH_ERROR, "status 302"),
        (_redirect("307 There"), TlsResult.STS_POLICY_FETCH_ERROR, "status 307"),
        (response(POLICY, status="404 No"), TlsResult.STS_POLICY_FETCH_ERROR, "status 404"),
        (response(POLICY, status="500 No"), TlsResult.STS_POLICY_FETCH_ERROR, "status 500"),
        (response(POLICY, status="206 Part"), TlsResult.STS_POLICY_FETCH_ERROR, "status 206"),
        (response(POLICY, kind="text/html"), TlsResult.STS_POLICY_INVALID, "text/plain"),
        (response(POLICY, kind="text/plainer"), TlsResult.STS_POLICY_INVALID, "text/plain"),
        (response(POLICY, kind=""), TlsResult.STS_POLICY_INVALID, "text/plain"),
        (
            response(POLICY, "Content-Encoding: gzip"),
            TlsResult.STS_POLICY_FETCH_ERROR,
            "compressed",
        ),
        (
            response(b"x" * (MAX_POLICY_OCTETS + 1)),
            TlsResult.STS_POLICY_INVALID,
            "larger than",
        ),
        (_endless, TlsResult.STS_POLICY_INVALID, "larger than"),
        (_endless_head, TlsResult.STS_POLICY_FETCH_ERROR, ""),
        (b"220 mx.a.test ESMTP\r\n", TlsResult.STS_POLICY_FETCH_ERROR, ""),
        (b"HTTP/1.1 200 OK\r\n", TlsResult.STS_POLICY_FETCH_ERROR, ""),
        (response(POLICY)[:-20], TlsResult.STS_POLICY_FETCH_ERROR, ""),
        (b"", TlsResult.STS_POLICY_FETCH_ERROR, ""),
    ],
    ids=[
        "301",
        "302",
        "307",
        "404",
        "500",
        "206",
        "html",
        "plainer",
        "untyped",
        "gzip",
        "large",
        "endless",
        "endless-head",
        "smtp",
        "half-a-head",
        "cut",
        "nothing",
    ],
)
async def test_what_else_comes_is_no_policy(
    authority: Authority, answer: Answer, result: TlsResult, text: str
) -> None:
    error, host = await failure(answer, authority)
    assert error.result is result
    assert text in str(error)
    assert str(error).isprintable()
    assert {request for request, _ in host.requests} == {"GET /.well-known/mta-sts.txt HTTP/1.1"}


async def test_a_body_as_large_as_may_be_is_taken(authority: Authority) -> None:
    body = b"x" * MAX_POLICY_OCTETS
    async with PolicyHost(authority.root.issue(HOST).server_context(), response(body)) as host:
        assert await fetch(host, authority) == body


async def _drip(writer: asyncio.StreamWriter) -> None:
    for octet in response(POLICY):
        writer.write(bytes([octet]))
        await writer.drain()
        await asyncio.sleep(0.5)  # a minute and more for all of them


async def _silence(writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


@pytest.mark.parametrize("answer", [_drip, _silence], ids=["drip", "silence"])
async def test_the_time_for_all_of_it_is_limited(authority: Authority, answer: Answer) -> None:
    error, _ = await failure(answer, authority, seconds=1.0)
    assert error.result is TlsResult.STS_POLICY_FETCH_ERROR
    assert "within 1 s" in str(error)


async def test_a_handshake_that_does_not_end_is_cut_off(authority: Authority) -> None:
    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host = PolicyHost(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    host.port = server.sockets[0].getsockname()[1]
    with pytest.raises(FetchFailed, match="within 1 s"):
        await fetch(host, authority, seconds=1.0)
    await asyncio.wait_for(hung_up.wait(), 10)
    server.close()


Leaf = Callable[[Authority], Issued]


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (lambda authority: authority.root.issue(HOST, expired=True), "expired"),
        (lambda authority: authority.root.issue(HOST, early=True), "not yet valid"),
        (lambda authority: authority.root.issue("a.test"), "Hostname mismatch"),
        (lambda authority: authority.root.issue("www.a.test", "*.mta-sts.a.test"), "mismatch"),
        (lambda authority: authority.root.issue(), "Hostname mismatch"),
        (lambda _: Issued.root("unknown").issue(HOST), "issuer"),
        (lambda _: Issued.root(HOST), "self-signed"),
    ],
    ids=["expired", "early", "other", "wildcard", "nameless", "unknown", "self-signed"],
)
async def test_the_policy_host_must_prove_who_it_is(
    authority: Authority, leaf: Leaf, text: str
) -> None:
    error, host = await failure(response(POLICY), authority, leaf=leaf(authority))
    assert error.result is TlsResult.STS_WEBPKI_INVALID
    assert text in str(error)
    assert not host.requests


async def test_old_tls_is_refused(authority: Authority) -> None:
    context = authority.root.issue(HOST).server_context()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with PolicyHost(context, response(POLICY)) as host:
        with pytest.raises(FetchFailed) as caught:
            await fetch(host, authority)
    assert caught.value.result is TlsResult.STS_POLICY_FETCH_ERROR
    assert not host.requests


@pytest.mark.parametrize(
    ("rdtype", "address"),
    [
        ("A", "127.0.0.1"),
        ("A", "10.1.2.3"),
        ("A", "192.168.1.1"),
        ("A", "169.254.169.254"),
        ("A", "100.64.0.1"),
        ("A", "0.0.0.0"),
        ("AAAA", "::1"),
        ("AAAA", "::ffff:127.0.0.1"),
        ("AAAA", "fd00::1"),
        ("AAAA", "fe80::1"),
        ("AAAA", "64:ff9b::7f00:1"),
    ],
)
async def test_forbidden_networks_are_never_connected_to(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, rdtype: str, address: str
) -> None:
    tried: list[object] = []
    loop = asyncio.get_running_loop()

    async def noted(_sock: object, place: object) -> None:
        tried.append(place)
        raise OSError("noted")

    monkeypatch.setattr(loop, "sock_connect", noted)
    resolver = FakeResolver({(HOST, "CNAME"): ["b.test"], ("b.test", rdtype): [address]})
    hosts = PolicyHosts(Https(resolver, allowed=lambda: (), context=authority.context))
    with pytest.raises(FetchFailed, match="networks that are not connected to"):
        await hosts.fetch("a.test")
    assert not tried
    # Of several addresses, those that are forbidden are left out.
    resolver.records[("b.test", "A")] = ["203.0.114.7", *([address] if rdtype == "A" else [])]
    with pytest.raises(FetchFailed):
        await hosts.fetch("a.test")
    assert tried == [("203.0.114.7", 443)]


async def test_the_checked_address_is_the_one_connected_to(authority: Authority) -> None:
    """Who answers the second question differently than the first gains nothing."""
    async with PolicyHost(authority.root.issue(HOST).server_context(), response(POLICY)) as host:
        resolver = FakeResolver({(HOST, "A"): ["127.0.0.1"]})
        hosts = PolicyHosts(
            Https(resolver, allowed=lambda: LOOPBACK, context=authority.context, port=host.port)
        )
        await hosts.fetch("a.test")
    assert sorted(resolver.queries) == [(HOST, "A"), (HOST, "AAAA")]


@pytest.mark.parametrize("zone", [{}, {(HOST, "TXT"): ["x"]}], ids=["no name", "no address"])
async def test_a_policy_host_without_address(
    authority: Authority, zone: dict[tuple[str, str], list[str]]
) -> None:
    hosts = PolicyHosts(Https(FakeResolver(zone), allowed=lambda: (), context=authority.context))
    with pytest.raises(FetchFailed) as caught:
        await hosts.fetch("a.test")
    assert caught.value.result is TlsResult.STS_POLICY_FETCH_ERROR


async def test_authorities_that_cannot_be_read(authority: Authority) -> None:
    broken = Path(tempfile.gettempdir()) / "there-is-no-such-file.pem"
    hosts = PolicyHosts(
        Https(
            FakeResolver({(HOST, "A"): ["127.0.0.1"]}),
            allowed=lambda: LOOPBACK,
            context=lambda: authenticating(broken),
        )
    )
    with pytest.raises(FetchFailed, match="No such file"):
        await hosts.fetch("a.test")


async def test_a_proxy_of_the_environment_is_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with PolicyHost(authority.root.issue(HOST).server_context(), response(POLICY)) as host:
        assert await fetch(host, authority) == POLICY.encode()
