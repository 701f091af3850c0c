"""TLS towards a real nats-server: who is trusted, who we are, and never a password in clear."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from services.common.jetstream import JetStream, NatsSettings
from services.common.store import NatsTls
from tests.support.certificates import CertificateFolder
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

PASSWORD = "a-password-that-nobody-reads"


@asynccontextmanager
async def server(
    folder: Path, files: CertificateFolder, *, verify: bool = False
) -> AsyncIterator[NatsServer]:
    """A nats-server that demands TLS, and a client's certificate if `verify`."""
    tls = (
        f'\ntls {{ cert_file: "{files.certificate}", key_file: "{files.key}", '
        f'ca_file: "{files.ca}", verify: {str(verify).lower()} }}\n'
    )
    started = NatsServer(folder, extra=tls)
    started.start()
    try:
        yield started
    finally:
        started.close()


@asynccontextmanager
async def connecting(port: int, tls: NatsTls, *, seconds: float = 30) -> AsyncIterator[JetStream]:
    """A store that had so long to connect."""
    settings = NatsSettings(urls=[f"tls://localhost:{port}"], client_name="test", tls=tls)
    store = JetStream(settings)
    await store.start(wait_s=seconds)
    try:
        yield store
    finally:
        await store.close()


async def test_a_server_that_is_trusted(tmp_path: Path) -> None:
    files = CertificateFolder(tmp_path / "tls")
    files.issue("localhost")
    async with (
        server(tmp_path / "nats", files) as nats,
        connecting(nats.port, NatsTls(authorities=files.ca)) as store,
    ):
        assert store.connected
        assert store.client.connected_url.scheme == "tls"


@pytest.mark.parametrize("why", ["authority", "name"])
async def test_a_server_that_is_not(tmp_path: Path, why: str) -> None:
    files = CertificateFolder(tmp_path / "tls")
    files.issue("localhost" if why == "authority" else "elsewhere.test")
    trusted = tmp_path / "trusted.crt"
    authority = trustme.CA() if why == "authority" else files.authority
    authority.cert_pem.write_to_path(str(trusted))
    async with (
        server(tmp_path / "nats", files) as nats,
        connecting(nats.port, NatsTls(authorities=trusted), seconds=3) as store,
    ):
        assert not store.connected


async def test_a_server_may_ask_who_we_are(tmp_path: Path) -> None:
    files = CertificateFolder(tmp_path / "tls")
    files.issue("localhost")
    ours = CertificateFolder(tmp_path / "ours", authority=files.authority)
    ours.issue("ingress.test")
    async with server(tmp_path / "nats", files, verify=True) as nats:
        async with connecting(nats.port, NatsTls(authorities=files.ca), seconds=3) as store:
            assert not store.connected
        tls = NatsTls(authorities=files.ca, certificate=ours.certificate, key=ours.key)
        async with connecting(nats.port, tls) as store:
            assert store.connected


async def test_files_are_read_anew_when_the_connection_is(tmp_path: Path) -> None:
    """The authority and our own certificate are exchanged while we are connected."""
    files = CertificateFolder(tmp_path / "tls")
    files.issue("localhost")
    ours = CertificateFolder(tmp_path / "ours", authority=files.authority)
    ours.issue("ingress.test")
    tls = NatsTls(authorities=ours.ca, certificate=ours.certificate, key=ours.key)
    async with (
        server(tmp_path / "nats", files, verify=True) as nats,
        connecting(nats.port, tls) as store,
    ):
        assert store.connected
        files.authority = ours.authority = trustme.CA()
        files.issue("localhost")
        ours.issue("ingress.test")
        await asyncio.to_thread(nats.kill)
        await eventually(lambda: _is(store, connected=False))
        await asyncio.to_thread(nats.start)
        await eventually(lambda: _is(store, connected=True))


async def test_a_renewed_certificate_of_the_server_is_taken_up_while_it_runs(
    tmp_path: Path,
) -> None:
    """Which is what the chart's reloader asks of it."""
    files = CertificateFolder(tmp_path / "tls")
    files.issue("elsewhere.test")
    async with (
        server(tmp_path / "nats", files) as nats,
        connecting(nats.port, NatsTls(authorities=files.ca), seconds=3) as store,
    ):
        assert not store.connected
        files.issue("localhost")
        os.kill(nats.pid, signal.SIGHUP)
        await eventually(lambda: _is(store, connected=True))


async def test_a_server_without_tls_is_told_nothing(tmp_path: Path) -> None:
    """nats-py encrypts only when the server asks for it; somebody in between would not."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.15.1","auth_required":true,"max_payload":1048576}\r\n')
        while octets := await reader.read(4096):
            heard.extend(octets)
            writer.write(b"PONG\r\n")
        writer.close()

    password = tmp_path / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    settings = NatsSettings(
        urls=[f"tls://127.0.0.1:{port}"],
        client_name="test",
        username="ingress",
        password_file=password,
        tls=NatsTls(),
    )
    store = JetStream(settings)
    await store.start(wait_s=2)
    try:
        assert not store.connected
        assert PASSWORD.encode() not in heard
        assert b"CONNECT" not in heard
    finally:
        await store.close()
        plain.close()


async def _is(store: JetStream, *, connected: bool) -> bool:
    return store.connected is connected
