"""What a listener's own settings change, and what it takes from everybody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.common.config.smtp import Role, Smtp, TlsMode
from tests.support.edge import running_edge
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected, no_questions_asked


def test_without_configuration_there_are_the_three_that_everybody_knows() -> None:
    listeners = Smtp().listeners
    assert [(each.port, each.role, each.tls) for each in listeners] == [
        (25, Role.MX, TlsMode.STARTTLS),
        (587, Role.SUBMISSION, TlsMode.STARTTLS),
        (465, Role.SUBMISSION, TlsMode.IMPLICIT),
    ]
    assert not any(each.proxy_protocol.trusted for each in listeners)


def _with(everywhere: bool, **listener: Any) -> dict[str, Any]:
    values = {"name": "mx", "address": "127.0.0.1", "port": 0, **listener}
    return {"smtp": {"require_tls": everywhere, "listeners": [values]}}


@pytest.mark.parametrize(
    ("config", "required"),
    [
        (_with(False), False),
        (_with(True), True),
        (_with(False, require_tls=True), True),
        (_with(True, require_tls=False), False),
    ],
)
async def test_tls_is_required_by_the_listener_or_else_by_all(
    config: dict[str, Any], required: bool, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port()) as client,
    ):
        await client.hello()
        reply = await client.say("MAIL FROM:<sender@example.net>")
        assert reply.startswith("530 5.7.0 " if required else "250 ")
        await client.say("RSET")
        await client.start_tls()
        await client.say("EHLO client.example.net")
        assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")


async def test_implicit_tls_is_tls(tmp_path: Path, nats_server: NatsServer) -> None:
    config = _with(True, tls="implicit")
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port(), tls=True) as client,
    ):
        assert "STARTTLS" not in await client.hello()
        assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")


@pytest.mark.parametrize("said", [b"EHLO client.example.net\r\n", b"\x16\x03\x01\x00\x05hello"])
async def test_a_handshake_that_is_none_ends_its_session_alone(
    said: bytes, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as before, connected(edge.port()) as client:
            await before.hello()
            await client.hello()
            assert (await client.say("STARTTLS")).startswith("220 ")
            client.send(said)
            # Nothing that could be read as a reply, at most an alert of TLS.
            assert b" " not in await client.ended()
            assert (await before.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
        async with connected(edge.port("submissions")) as client:
            client.send(said)
            assert b" " not in await client.ended()


def _value(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


_PROXY = {"proxy_protocol": {"trusted": ["127.0.0.0/8"]}}
_FROM_AFAR = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 465\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listener", "header"), [({}, b""), (_PROXY, _FROM_AFAR)], ids=["direct", "proxied"]
)
async def test_clients_that_never_do_their_handshake_are_counted_and_let_go(
    listener: dict[str, Any],
    header: bytes,
    tmp_path: Path,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.ingress.handshake.HANDSHAKE_S", 8.0)
    config = _with(False, name="silent", tls="implicit", **listener)
    config["smtp"]["limits"] = {"connections_per_address": 4, "exempt_networks": []}

    def counted() -> float:
        return _value("gatepost_ingress_connections", listener="silent")

    def ended(end: str) -> float:
        return _value("gatepost_ingress_sessions_total", listener="silent", end=end)

    excess, failed = ended("excess"), ended("tls")
    async with running_edge(tmp_path, nats_server, config) as edge, AsyncExitStack() as stack:
        port = edge.port("silent")
        silent = [await stack.enter_async_context(connected(port)) for _ in range(4)]
        for client in silent:
            client.send(header)

        async def all_are_in() -> bool:
            return counted() == 4

        await eventually(all_are_in)
        for _ in range(20):
            async with connected(port) as client:
                client.send(header)
                assert await client.ended() == b""
        assert ended("excess") == excess + 20
        assert ended("tls") == failed
        await asyncio.gather(*(client.ended() for client in silent))

        async def all_are_gone() -> bool:
            return counted() == 0

        await eventually(all_are_gone)
        assert ended("tls") == failed + 4
        async with connected(port) as client:
            client.send(header)
            await client.writer.start_tls(no_questions_asked())
            await client.hello()
            assert counted() == 1
            assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
            await client.say("QUIT")
        await eventually(all_are_gone)


async def test_draining_does_not_wait_for_handshakes(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    config = _with(False, name="drained", tls="implicit")
    labels = {"listener": "drained", "end": "drained"}
    before = _value("gatepost_ingress_sessions_total", **labels)
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port("drained")) as client,
    ):

        async def is_in() -> bool:
            return _value("gatepost_ingress_connections", listener="drained") == 1

        await eventually(is_in)
        await edge.listeners.drain(grace_s=60)
        assert await client.ended() == b""
    assert _value("gatepost_ingress_sessions_total", **labels) == before + 1


@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
async def test_a_session_that_we_end_is_not_lost_when_the_client_leaves_then(
    resets: bool, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = _with(False, name="ended")

    def ended(end: str) -> float:
        return _value("gatepost_ingress_sessions_total", listener="ended", end=end)

    foreign, lost = ended("foreign"), ended("lost")
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port("ended")) as client,
    ):
        await client.hello()
        assert (await client.say("GET / HTTP/1.1")).startswith("521 5.5.1 ")
        if resets:
            client.writer.transport.abort()
        else:
            client.writer.close()

        async def is_gone() -> bool:
            return ended("foreign") + ended("lost") > foreign + lost

        await eventually(is_gone)
    assert (ended("foreign"), ended("lost")) == (foreign + 1, lost)


async def test_an_ipv6_client_is_named_by_its_address(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    config = _with(False, proxy_protocol={"trusted": ["127.0.0.0/8"]})
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port()) as client,
    ):
        client.send(b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n")
        await client.hello()
        await client.start_tls()
        await client.say("EHLO client.example.net")
        assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
        (mail,) = await edge.mails()
    assert b"([IPv6:2001:db8::7])" in mail.content
    assert mail.record.client_address == "2001:db8::7"
