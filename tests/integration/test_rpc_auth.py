"""Who may call what, over a real socket: tokens, rotation, certificates."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc import tokens as tokens_module
from services.common.rpc.auth import (
    CHANGE,
    CHECK,
    OPEN,
    SERVE,
    VIEW,
    Role,
    Rule,
    check_unless_dry_run,
)
from services.common.rpc.client import ClientTls, channel
from services.common.rpc.credentials import server_credentials
from services.common.rpc.errors import reason_of
from services.common.rpc.tokens import token_file
from services.common.tls import CertificateFiles
from tests.support.echo_rpc import SERVICE, EchoMessage, EchoStub, Serving, serving

Metadata = tuple[tuple[str, str], ...]
CALLERS = [Role.NONE, Role.VIEWER, Role.OPERATOR, Role.SERVICE]
RULES: list[tuple[Rule, str]] = [  # rule, and whether each of CALLERS may call
    (OPEN, "yes yes yes yes"),
    (VIEW, "no yes yes no"),
    (CHANGE, "no no yes no"),
    (SERVE, "no no no yes"),
    (CHECK, "no no yes yes"),
]


def source(running: Serving, role: Role) -> Callable[[], str]:
    return lambda: "" if role is Role.NONE else running.token(role)


async def status(
    stub: EchoStub, *, dry_run: bool = False, metadata: Metadata = ()
) -> tuple[grpc.StatusCode, str]:
    try:
        await stub.Echo(EchoMessage(text="x", dry_run=dry_run), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code(), reason_of(error)
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize(("rule", "expected"), RULES)
async def test_roles(tmp_path: Path, rule: Rule, expected: str) -> None:
    found = []
    async with serving(tmp_path, echo=rule) as running:
        for role in CALLERS:
            async with channel(running.address, token_source=source(running, role)) as open_channel:
                code, _ = await status(EchoStub(open_channel))
                found.append("yes" if code is grpc.StatusCode.OK else "no")
    assert " ".join(found) == expected


async def test_dry_run_is_open_and_a_real_check_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path, echo=check_unless_dry_run) as running:
        async with channel(running.address) as stranger:
            stub = EchoStub(stranger)
            assert await status(stub, dry_run=True) == (grpc.StatusCode.OK, "")
            assert await status(stub) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
        async with channel(running.address, token_source=source(running, Role.SERVICE)) as service:
            assert await status(EchoStub(service)) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer {viewer}", (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")),
        ("bearer {operator}", (grpc.StatusCode.OK, "")),  # RFC 7235 §2.1: any case
        ("Bearer  {operator} ", (grpc.StatusCode.OK, "")),
        ("Basic {operator}", (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")),
        ("{operator}", (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")),
        ("Bearer", (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")),
        ("Bearer wrong-but-long-enough", (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN")),
        ("Bearer {operator}x", (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN")),
    ],
)
async def test_authorization_field(
    tmp_path: Path, header: str, expected: tuple[grpc.StatusCode, str]
) -> None:
    async with (
        serving(tmp_path, echo=CHANGE) as running,
        grpc.aio.insecure_channel(running.address) as plain,
    ):
        tokens = {str(role): running.token(role) for role in tokens_module.TOKEN_ROLES}
        metadata = (("authorization", header.format(**tokens)),)
        assert await status(EchoStub(plain), metadata=metadata) == expected
        # With two fields it is unclear who calls.
        twice = grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"
        assert await status(EchoStub(plain), metadata=metadata * 2) == twice


async def test_error_names_the_role_and_no_token(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, echo=CHANGE) as running,
        channel(running.address, token_source=source(running, Role.VIEWER)) as viewer,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(viewer).Echo(EchoMessage())
        details = str(caught.value.details())
        assert "needs the role operator; the caller has viewer" in details
        assert running.token(Role.VIEWER) not in details


async def test_streams_are_guarded_too(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, count=VIEW) as running,
        channel(running.address) as stranger,
        channel(running.address, token_source=lambda: running.token(Role.VIEWER)) as viewer,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(stranger).Count(EchoMessage(text="ab")).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answers = [a.text async for a in EchoStub(viewer).Count(EchoMessage(text="ab"))]
        assert answers == ["a", "b"]


async def test_rotated_secret_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted Secret: `service.token` → `..data/service.token`, `..data` → a new directory."""
    monkeypatch.setattr(tokens_module, "RELOAD_SECONDS", 0.05)
    directory = tmp_path / "tokens"
    for version, token in (("one", "first-token-of-the-service"), ("two", "second-token-it-is")):
        (directory / version).mkdir(parents=True)
        (directory / version / "service.token").write_text(token)
    (directory / "..data").symlink_to("one")
    (directory / "service.token").symlink_to("..data/service.token")

    def sure(token: str) -> grpc.aio.Channel:
        return channel(running.address, token_source=lambda: token)

    async with serving(tmp_path, echo=SERVE) as running:
        followed = tokens_module.TokenFile(token_file(directory, Role.SERVICE))
        async with (
            sure("first-token-of-the-service") as old,
            sure("second-token-it-is") as new,
            channel(running.address, token_source=followed) as following,
        ):
            ok, unknown = (
                (grpc.StatusCode.OK, ""),
                (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN"),
            )
            assert await status(EchoStub(old)) == ok
            assert await status(EchoStub(following)) == ok
            assert await status(EchoStub(new)) == unknown
            (directory / "..next").symlink_to("two")
            os.replace(directory / "..next", directory / "..data")
            while await status(EchoStub(new)) != ok:
                pass
            assert await status(EchoStub(old)) == unknown
            while await status(EchoStub(following)) != ok:
                pass


async def test_grpcurl_with_and_without_a_token(tmp_path: Path) -> None:
    async def grpcurl(*args: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "grpcurl",
            "-plaintext",
            *args,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return output.decode()

    async with serving(tmp_path, echo=CHANGE) as running:
        call = ("-d", '{"text": "hi"}', running.address, f"{SERVICE}/Echo")
        output = await grpcurl(*call)
        assert "Code: Unauthenticated" in output
        assert "role operator" in output
        assert "ROLE.token" in output
        output = await grpcurl("-H", f"authorization: Bearer {running.token(Role.VIEWER)}", *call)
        assert "Code: PermissionDenied" in output
        assert "the caller has viewer" in output
        output = await grpcurl("-H", f"authorization: Bearer {running.token(Role.OPERATOR)}", *call)
        assert '"text": "hi"' in output


def write_pair(authority: trustme.CA, directory: Path, *names: str) -> CertificateFiles:
    directory.mkdir(exist_ok=True)
    leaf = authority.issue_cert(*names)
    files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
    leaf.private_key_pem.write_to_path(files.key)
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return files


async def test_certificates_instead_of_tokens(tmp_path: Path) -> None:
    authority, authorities = trustme.CA(), tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(authorities)
    server = write_pair(authority, tmp_path / "server", "policy.test")
    credentials = server_credentials(server, client_authorities=authorities)
    identities = {"ingress.gatepost": Role.SERVICE, "mon.gatepost": Role.VIEWER}

    async def called_with(name: str) -> tuple[grpc.StatusCode, str]:
        files = write_pair(authority, tmp_path / name, name)
        tls = ClientTls(
            authorities=authorities,
            certificate=files.certificate,
            key=files.key,
            server_name="policy.test",
        )
        async with channel(running.address, tls=tls) as certified:
            return await status(EchoStub(certified))

    async with serving(
        tmp_path, echo=SERVE, credentials=credentials, identities=identities
    ) as running:
        assert await called_with("ingress.gatepost") == (grpc.StatusCode.OK, "")
        denied = grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"
        assert await called_with("mon.gatepost") == denied
        missing = grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"
        assert await called_with("stranger.gatepost") == missing
        authority = trustme.CA()  # of somebody else
        code, _ = await called_with("ingress.gatepost")
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_server_certificate_is_exchanged_without_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.common.rpc.credentials.RELOAD_SECONDS", 0.0)
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(tmp_path / "old.crt")
    new.cert_pem.write_to_path(tmp_path / "new.crt")
    files = write_pair(old, tmp_path / "server", "policy.test")

    async def healthy(authorities: str) -> bool:
        tls = ClientTls(authorities=tmp_path / authorities, server_name="policy.test")
        async with channel(running.address, tls=tls) as certified:
            health = health_pb2_grpc.HealthStub(certified)
            try:
                await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.aio.AioRpcError:
                return False
            return True

    async with serving(tmp_path, credentials=server_credentials(files)) as running:
        assert await healthy("old.crt")
        files.certificate.write_text("-----BEGIN CERTIFICATE-----\ngarbage\n")
        assert await healthy("old.crt")
        assert "certificate rejected" in caplog.text
        write_pair(new, tmp_path / "server", "policy.test")
        assert await healthy("new.crt")
        assert not await healthy("old.crt")
