"""Server TLS in real handshakes: implicit and STARTTLS, names, exchange of certificates."""

import asyncio
import os
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
import uvloop
from cryptography import x509
from prometheus_client import REGISTRY

from services.common.start import StartError
from services.common.tls import CertificateFiles, ServerTls, ensure_self_signed


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a test's coroutine on either event loop: services use uvloop, and its TLS is its own."""

    def in_loop(main: Callable[[], object]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())  # type: ignore[arg-type]

    return in_loop


def write_pair(authority: trustme.CA, directory: Path, *names: str) -> CertificateFiles:
    directory.mkdir(parents=True, exist_ok=True)
    leaf = authority.issue_cert(*names)
    files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
    leaf.private_key_pem.write_to_path(files.key)
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return files


@asynccontextmanager
async def listening(tls: ServerTls) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def names_seen(port: int, authority: trustme.CA | None, name: str | None) -> set[str]:
    """The names in the certificate that a client is shown who asks for `name`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if authority is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        authority.configure_trust(context)
    # An empty name sends no SNI.
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name or ""
    )
    assert await reader.read() == b"220 hello\r\n"
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    leaf = x509.load_der_x509_certificate(shown)
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


def rejected(files: CertificateFiles) -> float | None:
    labels = {"certificate": str(files.certificate)}
    return REGISTRY.get_sample_value("gatepost_tls_certificate_rejected", labels)


def test_name_chooses_the_certificate(tmp_path: Path, run: Callable[..., None]) -> None:
    authority = trustme.CA()
    tls = ServerTls(
        [
            write_pair(authority, tmp_path / "first", "mx.example.test"),
            write_pair(authority, tmp_path / "second", "mail.other.test", "*.wild.test"),
        ]
    )
    tls.load()

    async def main() -> None:
        async with listening(tls) as port:
            for name, expected in {
                "mx.example.test": "mx.example.test",
                "MAIL.other.test": "mail.other.test",
                "a.wild.test": "mail.other.test",
                "a.b.wild.test": "mx.example.test",  # a wildcard is one label
                "unknown.test": "mx.example.test",
                None: "mx.example.test",
            }.items():
                assert expected in await names_seen(port, authority, name), name

    run(main)


def test_exchange_under_a_running_listener(
    tmp_path: Path, run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A mounted Secret: the files are links below a link that is replaced."""
    authority, mount = trustme.CA(), tmp_path / "mount"
    write_pair(authority, mount / "one", "one.test")
    write_pair(authority, mount / "two", "two.test")
    write_pair(authority, mount / "bad", "bad.test")
    write_pair(authority, mount / "bad2", "bad2.test")
    (mount / "bad" / "tls.key").write_text((mount / "bad2" / "tls.key").read_text())
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(f"..data/{name}")
    (mount / "..data").symlink_to("one")
    files = CertificateFiles(mount / "tls.crt", mount / "tls.key")
    tls = ServerTls([files])
    tls.load()

    def swap(to: str) -> None:
        (mount / "..next").symlink_to(to)
        os.replace(mount / "..next", mount / "..data")
        tls.reload()

    async def main() -> None:
        async with listening(tls) as port:
            assert await names_seen(port, authority, None) == {"one.test"}
            swap("two")
            assert await names_seen(port, authority, None) == {"two.test"}
            assert await names_seen(port, authority, "one.test") == {"two.test"}
            swap("bad")  # a key that belongs to another certificate
            assert rejected(files) == 1
            assert await names_seen(port, authority, None) == {"two.test"}
            swap("nowhere")
            assert await names_seen(port, authority, None) == {"two.test"}
            swap("one")
            assert rejected(files) == 0
            assert await names_seen(port, authority, None) == {"one.test"}

    run(main)
    lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert lines == ["certificate rejected, the old one stays"] * 2


def test_files_that_come_back_as_they_were_are_no_longer_rejected(tmp_path: Path) -> None:
    files = write_pair(trustme.CA(), tmp_path, "one.test")
    tls = ServerTls([files])
    tls.load()
    key = files.key.read_bytes()
    files.key.unlink()
    tls.reload()
    assert rejected(files) == 1
    files.key.write_bytes(key)
    tls.reload()
    assert rejected(files) == 0


def test_other_files_take_their_place_together(
    tmp_path: Path, run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    old = write_pair(authority, tmp_path / "old", "old.test")
    new = write_pair(authority, tmp_path / "new", "new.test")
    late = CertificateFiles(tmp_path / "late" / "tls.crt", tmp_path / "late" / "tls.key")
    tls = ServerTls([old])
    tls.load()

    async def main() -> None:
        async with listening(tls) as port:
            tls.exchange([new, late])
            tls.reload()
            assert rejected(late) == 1
            assert await names_seen(port, authority, "new.test") == {"old.test"}
            # What is in use is followed meanwhile.
            write_pair(authority, tmp_path / "old", "renewed.test")
            tls.reload()
            assert await names_seen(port, authority, None) == {"renewed.test"}
            write_pair(authority, tmp_path / "late", "late.test")
            tls.reload()
            assert await names_seen(port, authority, None) == {"new.test"}
            assert await names_seen(port, authority, "late.test") == {"late.test"}
            assert (rejected(new), rejected(late), rejected(old)) == (0, 0, None)
            # Named by mistake, and taken back.
            nowhere = CertificateFiles(tmp_path / "x.crt", tmp_path / "x.key")
            tls.exchange([nowhere])
            assert rejected(nowhere) == 1
            tls.exchange([late, new])
            assert rejected(nowhere) is None
            assert await names_seen(port, authority, None) == {"late.test"}

    run(main)
    lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert lines == ["certificate rejected, the old one stays"] * 2


async def test_watch_notices_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.common.tls.RELOAD_SECONDS", 0.01)
    authority = trustme.CA()
    tls = ServerTls([write_pair(authority, tmp_path, "one.test")])
    tls.load()
    watching = asyncio.ensure_future(tls.watch())
    try:
        async with listening(tls) as port:
            write_pair(authority, tmp_path, "two.test")
            while await names_seen(port, authority, None) != {"two.test"}:
                pass
    finally:
        watching.cancel()


@pytest.mark.parametrize(
    ("minimum", "answers"), [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, False)]
)
async def test_minimum_version(tmp_path: Path, minimum: ssl.TLSVersion, answers: bool) -> None:
    tls = ServerTls([write_pair(trustme.CA(), tmp_path, "one.test")], minimum=minimum)
    tls.load()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(tls) as port:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            greeting = await reader.read()
            writer.close()
        except (ssl.SSLError, ConnectionError):
            greeting = b""
    assert greeting == (b"220 hello\r\n" if answers else b"")


def test_nothing_older_than_tls_1_2_unless_asked_for(tmp_path: Path) -> None:
    tls = ServerTls([ensure_self_signed(tmp_path, "one.test")])
    tls.load()
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_self_signed_is_made_once_and_kept_private(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    files = ensure_self_signed(tmp_path / "tls", "mail.example.test")
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    before = files.certificate.read_bytes(), files.key.read_bytes()
    assert ensure_self_signed(tmp_path / "tls", "mail.example.test") == files
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == before
    tls = ServerTls([files])
    tls.load()

    async def main() -> None:
        trusting = ssl.create_default_context(cafile=str(files.certificate))
        async with listening(tls) as port:
            for name in ("mail.example.test", "localhost", "127.0.0.1", "::1"):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trusting, server_hostname=name
                )
                assert await reader.read() == b"220 hello\r\n"
                writer.close()

    run(main)


def _no_certificate(files: CertificateFiles) -> None:
    files.certificate.unlink()


def _garbage(files: CertificateFiles) -> None:
    files.certificate.write_text("garbage")


def _other_key(files: CertificateFiles) -> None:
    ensure_self_signed(files.key.parent / "other", "x.test").key.replace(files.key)


def _encrypted_key(files: CertificateFiles) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_no_certificate, "tls.crt: No such file or directory$"),
        (_garbage, "not a certificate chain with its key"),
        (_other_key, "not a certificate chain with its key"),
        (_encrypted_key, "the private key is encrypted"),
    ],
)
def test_unusable_files_at_start_are_one_line(
    tmp_path: Path, spoil: Callable[[CertificateFiles], None], reason: str
) -> None:
    files = ensure_self_signed(tmp_path, "mail.example.test")
    spoil(files)
    with pytest.raises(StartError, match=reason) as caught:
        ServerTls([files]).load()
    assert str(files.certificate) in str(caught.value)


def test_half_a_pair_is_not_overwritten(tmp_path: Path) -> None:
    files = ensure_self_signed(tmp_path, "mail.example.test")
    files.certificate.unlink()
    key = files.key.read_bytes()
    with pytest.raises(StartError, match="without its other half"):
        ensure_self_signed(tmp_path, "mail.example.test")
    assert files.key.read_bytes() == key
