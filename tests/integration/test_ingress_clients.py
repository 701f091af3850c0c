"""Programs and libraries that people send mail with, against the session engine."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path

import aiosmtplib
import pytest

from tests.support.edge import RunningEdge, running_edge
from tests.support.nats_server import NatsServer
from tests.support.programs import program
from tests.support.smtp_client import no_questions_asked

_UTF8 = "From: you@example.test\r\nSubject: gr\u00fc\u00dfe\r\n\r\n\u00e4\r\n".encode()
_DOTS = b"From: you@example.test\r\n\r\n.\r\n..\r\n...x\r\n\r\n.\r\n"


async def _run(*command: str, stdin: bytes = b"", fails: bool = False) -> str:
    """What a program says; `fails`: it must end with an error instead."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(stdin)
    text = output.decode(errors="replace")
    assert (process.returncode != 0) is fails, text
    return text


_LOGIN = ("--auth-user", "you@example.test", "--auth-password", "secret")
SWAKS = [
    ("mx", ()),
    ("mx", ("--tls",)),
    ("mx", ("--tls", "--tls-protocol", "tlsv1_2")),
    ("mx", ("--protocol", "SMTP")),
    ("mx", ("--pipeline",)),
    ("submissions", ("--tls-on-connect", "--auth", "PLAIN", *_LOGIN)),
    ("submissions", ("--tls-on-connect", "--auth", "LOGIN", *_LOGIN)),
    ("submission", ("--tls", "--auth", "PLAIN", *_LOGIN)),
    ("submission", ("--tls", "--auth", "LOGIN", *_LOGIN)),
    ("submission", ("--tls", "--auth-optional-strict", *_LOGIN)),
    ("submission", ("--tls", "--auth", "CRAM-MD5,LOGIN", *_LOGIN)),
    ("submission", ("--tls-optional-strict", "--auth", *_LOGIN)),
    ("submission", ("--tls", "--auth-optional", "PLAIN", *_LOGIN)),
    ("mx", ("--tls-optional",)),
    ("mx", ("--tls-optional-strict", "--pipeline")),
    ("mx", ("--tls", "--tls-protocol", "tlsv1_3", "--tls-sni", "mx.example.test")),
    ("mx", ("--tls", "--tls-protocol", "no_tlsv1_3")),
    ("mx", ("--tls", "--tls-cipher", "ECDHE+AESGCM", "--tls-protocol", "tlsv1_2")),
    ("plain", ("--tls-optional",)),
    ("plain", ("--tls-optional-strict",)),
    ("plain", ("--auth-optional", "PLAIN", *_LOGIN)),
]
_STRANGER = ("--auth-user", "you@example.test", "--auth-password", "guessed")
REFUSED = [
    ("plain", ("--tls",), "Host did not advertise STARTTLS"),
    ("mx", ("--tls-on-connect",), "TLS startup failed"),
    ("submissions", ("--tls-on-connect", "--tls-protocol", "tlsv1_1"), "TLS startup failed"),
    ("submission", ("--tls", "--tls-protocol", "tlsv1,tlsv1_1"), "TLS startup failed"),
    ("submission", ("--tls", "--tls-verify"), "TLS startup failed"),
    ("submission", ("--auth", "PLAIN", *_LOGIN), "Host did not advertise authentication"),
    ("submission", ("--tls", "--auth", "CRAM-MD5", *_LOGIN), "requested type not available"),
    ("submission", ("--tls", "--auth", "PLAIN", *_STRANGER), "535 5.7.8 "),
    ("submission", ("--tls", "--auth", "LOGIN", *_STRANGER), "535 5.7.8 "),
    ("submission", ("--tls", "--auth-optional-strict", "PLAIN", *_STRANGER), "535 5.7.8 "),
    ("submission", ("--tls", "--auth-optional", "PLAIN", *_STRANGER), "530 5.7.0 "),
    ("submission", ("--tls",), "530 5.7.0 "),
]


@pytest.mark.parametrize(("listener", "arguments"), SWAKS)
async def test_swaks(
    listener: str, arguments: tuple[str, ...], tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        server = ("--server", "127.0.0.1", "--port", str(edge.port(listener)))
        envelope = ("--from", "you@example.test", "--to", "me@example.test,they@example.org")
        body = ("--header", "Subject: swaks", "--body", ".dots\\n..\\nend")
        await _run(program("swaks"), *server, *envelope, *body, *arguments)
        mails = await edge.mails()
    assert {mail.record.destination for mail in mails} == {"example.test", "example.org"}
    assert all(b"\r\n\r\n.dots\r\n..\r\nend\r\n" in mail.content for mail in mails)


@pytest.mark.parametrize(("listener", "arguments", "reason"), REFUSED)
async def test_swaks_hears_why(
    listener: str, arguments: tuple[str, ...], reason: str, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        server = ("--server", "127.0.0.1", "--port", str(edge.port(listener)))
        envelope = ("--from", "you@example.test", "--to", "me@example.test")
        said = await _run(program("swaks"), *server, *envelope, *arguments, fails=True)
        assert reason in said
        assert await edge.mails() == []


_STARTTLS = ("--tls=on", "--tls-starttls=on", "--tls-certcheck=off")
_IMPLICIT = ("--tls=on", "--tls-starttls=off", "--tls-certcheck=off")
_USER = ("--user=you@example.test", "--passwordeval=printf secret")
MSMTP = [
    ("plain", ()),
    ("mx", _STARTTLS),
    ("submission", (*_STARTTLS, "--auth=plain", *_USER)),
    ("submission", (*_STARTTLS, "--auth=login", *_USER)),
    ("submissions", (*_IMPLICIT, "--auth=plain", *_USER)),
    ("submissions", (*_IMPLICIT, "--auth=login", *_USER)),
    ("submissions", (*_IMPLICIT, "--auth=on", *_USER)),
    ("submission", (*_STARTTLS, "--auth=on", *_USER, "--dsn-notify=success", "--dsn-return=hdrs")),
]


@pytest.mark.parametrize(("listener", "arguments"), MSMTP)
async def test_msmtp(
    listener: str, arguments: tuple[str, ...], tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        await _msmtp(edge, listener, *arguments, stdin=_DOTS.replace(b"\r\n", b"\n"))
        (mail,) = await edge.mails()
    assert mail.content.endswith(_DOTS)
    assert mail.record.authenticated_account == (
        "you@example.test" if listener.startswith("submission") else ""
    )
    if "--dsn-return=hdrs" in arguments:
        assert mail.record.ret == "HDRS"
        assert list(mail.record.recipients[0].notify) == ["SUCCESS"]


async def test_msmtp_hears_why(tmp_path: Path, nats_server: NatsServer) -> None:
    wrong = (*_IMPLICIT, "--auth=plain", "--user=you@example.test", "--passwordeval=printf no")
    unoffered = (*_STARTTLS, "--auth=cram-md5", *_USER)
    async with running_edge(tmp_path, nats_server) as edge:
        said = await _msmtp(edge, "submissions", *wrong, fails=True)
        assert "535 5.7.8 User name or password is wrong" in said
        said = await _msmtp(edge, "submission", *unoffered, fails=True)
        assert "does not support authentication method CRAM-MD5" in said
        assert "530 5.7.0" in await _msmtp(edge, "submission", *_STARTTLS, fails=True)
        assert await edge.mails() == []


async def _msmtp(
    edge: RunningEdge, listener: str, *arguments: str, stdin: bytes = _DOTS, fails: bool = False
) -> str:
    return await _run(
        program("msmtp"),
        *("--host=127.0.0.1", f"--port={edge.port(listener)}", "--from=you@example.test"),
        *arguments,
        "me@example.test",
        stdin=stdin,
        fails=fails,
    )


def _plain(edge: RunningEdge) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", edge.port())


def _starttls(edge: RunningEdge) -> smtplib.SMTP:
    client = _plain(edge)
    client.starttls(context=no_questions_asked())
    return client


def _implicit(edge: RunningEdge) -> smtplib.SMTP:
    port = edge.port("submissions")
    client = smtplib.SMTP_SSL("127.0.0.1", port, context=no_questions_asked())
    client.login("you@example.test", "secret")
    return client


@pytest.mark.parametrize("connect", [_plain, _starttls, _implicit])
@pytest.mark.parametrize("content", [_UTF8, _DOTS])
async def test_smtplib(
    connect: Callable[[RunningEdge], smtplib.SMTP],
    content: bytes,
    tmp_path: Path,
    nats_server: NatsServer,
) -> None:
    def send(edge: RunningEdge) -> None:
        with connect(edge) as client:
            options = ["BODY=8BITMIME", "SMTPUTF8"] if content is _UTF8 else []
            client.sendmail("you@example.test", ["me@example.test"], content, options)

    async with running_edge(tmp_path, nats_server) as edge:
        await asyncio.to_thread(send, edge)
        (mail,) = await edge.mails()
    assert mail.content.endswith(content)


async def test_smtplib_hears_why(tmp_path: Path, nats_server: NatsServer) -> None:
    def refused(edge: RunningEdge) -> tuple[int, bytes]:
        with _implicit(edge) as client, pytest.raises(smtplib.SMTPSenderRefused) as error:
            client.sendmail("boss@example.test", ["me@example.test"], _DOTS)
        return error.value.smtp_code, error.value.smtp_error

    def wrong(edge: RunningEdge) -> int:
        port = edge.port("submissions")
        with (
            smtplib.SMTP_SSL("127.0.0.1", port, context=no_questions_asked()) as client,
            pytest.raises(smtplib.SMTPAuthenticationError) as error,
        ):
            client.login("you@example.test", "wrong")
        return error.value.smtp_code

    async with running_edge(tmp_path, nats_server) as edge:
        code, text = await asyncio.to_thread(refused, edge)
        assert (code, text[:5]) == (553, b"5.7.1")
        assert await asyncio.to_thread(wrong, edge) == 535


async def test_aiosmtplib(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        context: ssl.SSLContext = no_questions_asked()
        async with aiosmtplib.SMTP(
            hostname="127.0.0.1", port=edge.port("submission"), start_tls=True, tls_context=context
        ) as client:
            await client.login("you@example.test", "secret")
            await client.sendmail("you@example.test", ["me@example.test"], _DOTS)
            await client.sendmail("you@example.test", ["they@example.org"], _UTF8)
        mails = await edge.mails()
    assert [mail.record.destination for mail in mails] == ["example.test", "example.org"]


@pytest.mark.parametrize("reuse", [True, False])
async def test_smtp_source_with_many_sessions(
    reuse: bool, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        await _run(
            program("smtp-source"),
            *("-d",) * reuse,
            *("-s", "20", "-m", "200", "-l", "5000", "-f", "sender@example.net"),
            *("-t", "me@example.test", f"inet:127.0.0.1:{edge.port()}"),
        )
        assert len(await edge.mails()) == 200
