"""Behind a load balancer: PROXY headers before SMTP, STARTTLS and implicit TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import running_edge
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import Client, connected, no_questions_asked

_HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"


def _listeners(tls: str, *, trusted: str = "127.0.0.0/8") -> dict[str, Any]:
    listener = {
        "name": "mx",
        "address": "127.0.0.1",
        "port": 0,
        "tls": tls,
        "proxy_protocol": {"trusted": [trusted]},
    }
    return {"smtp": {"listeners": [listener]}}


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_the_client_is_who_the_proxy_says(
    tls: str, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with (
        running_edge(tmp_path, nats_server, _listeners(tls)) as edge,
        connected(edge.port()) as client,
    ):
        client.send(_HEADER)
        if tls == "implicit":
            await client.writer.start_tls(no_questions_asked())
        await client.hello()
        if tls == "starttls":
            await client.start_tls()
            await client.say("EHLO client.example.net")
        assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
        (mail,) = await edge.mails()
        assert mail.record.client_address == "192.0.2.7"
        assert b"([192.0.2.7])" in mail.content
        assert edge.policy.envelopes[0].session.client_address == "192.0.2.7"
        assert edge.policy.envelopes[0].session.client_port == 4711


async def test_header_and_commands_may_come_together(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with (
        running_edge(tmp_path, nats_server, _listeners("none")) as edge,
        connected(edge.port()) as client,
    ):
        client.send(_HEADER + b"EHLO client.example.net\r\nQUIT\r\n")
        assert (await client.reply()).startswith("220 ")
        assert (await client.reply()).startswith("250-")
        assert (await client.reply()).startswith("221 ")


@pytest.mark.parametrize("said", [b"EHLO client.example.net\r\n", b"PROXY TCP4 nonsense\r\n"])
async def test_a_trusted_proxy_has_to_say_it(
    said: bytes, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with (
        running_edge(tmp_path, nats_server, _listeners("none")) as edge,
        connected(edge.port()) as client,
    ):
        client.send(said)
        assert await client.ended() == b""


async def test_nobody_else_is_believed(tmp_path: Path, nats_server: NatsServer) -> None:
    config = _listeners("none", trusted="192.0.2.0/24")
    async with (
        running_edge(tmp_path, nats_server, config) as edge,
        connected(edge.port()) as client,
    ):
        assert (await client.reply()).startswith("220 ")
        assert (await client.say(_HEADER.decode().strip())).startswith("500 5.5.2")
        await client.say("EHLO client.example.net")
        assert (await client.mail(b"Subject: x\r\n\r\n")).startswith("250 ")
        assert edge.policy.envelopes[0].session.client_address == "127.0.0.1"


async def test_a_probe_of_the_proxy_itself(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server, _listeners("none")) as edge:
        async with connected(edge.port()) as client:
            client.send(b"PROXY UNKNOWN\r\n")
            assert (await client.reply()).startswith("220 ")
        # One that only connects and goes is no news.
        async with connected(edge.port()):
            pass
        async with connected(edge.port()) as client:
            client.send(_HEADER)
            assert (await client.reply()).startswith("220 ")


async def test_limits_and_bans_are_for_the_client_and_shared_by_replicas(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    config = _listeners("implicit")
    config["smtp"]["listeners"][0]["role"] = "submission"
    config["smtp"]["limits"] = {"login_failures": 3, "connections_per_minute": 50}
    (tmp_path / "other").mkdir()

    async def login(client: Client, address: str, password: str) -> str:
        client.send(f"PROXY TCP4 {address} 198.51.100.1 4711 25\r\n".encode())
        await client.writer.start_tls(no_questions_asked())
        await client.hello()
        return await client.say(f"AUTH PLAIN {password}")

    right, wrong = "AHlvdUBleGFtcGxlLnRlc3QAc2VjcmV0", "AHlvdUBleGFtcGxlLnRlc3QAd3Jvbmc="
    async with (
        running_edge(tmp_path, nats_server, config) as one,
        running_edge(tmp_path / "other", nats_server, config) as other,
    ):

        async def try_at(edge: Any, address: str, password: str) -> str:
            async with connected(edge.port()) as client:
                return (await login(client, address, password))[:9]

        guesses = await asyncio.gather(*(try_at(one, "192.0.2.7", wrong) for _ in "123"))
        assert guesses == ["535 5.7.8"] * 3
        assert await try_at(one, "192.0.2.7", right) == "454 4.7.0"
        assert await try_at(other, "192.0.2.7", right) == "454 4.7.0"
        # The account is not locked: its owner comes from somewhere else.
        assert await try_at(other, "192.0.2.8", right) == "235 2.7.0"


async def test_connections_have_a_rate(tmp_path: Path, nats_server: NatsServer) -> None:
    config = _listeners("none")
    config["smtp"]["limits"] = {"connections_per_minute": 3}
    async with running_edge(tmp_path, nats_server, config) as edge:
        greetings = []
        for _ in range(5):
            async with connected(edge.port()) as client:
                client.send(_HEADER)
                greetings.append((await client.reply())[:3])
        assert greetings == ["220", "220", "220", "421", "421"]
