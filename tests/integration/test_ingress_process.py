"""The ingress as a process: start, stop with mail in hand, metrics, mistakes of configuration."""

from __future__ import annotations

import asyncio
import json
import signal
import smtplib
import ssl
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from services.common.config.loader import overlaid
from services.common.config.source import ConfigSource
from services.common.tls import ensure_self_signed
from services.ingress.app import _server_tls
from tests.support.eventually import eventually
from tests.support.ingress_process import running_process
from tests.support.nats_server import NatsServer
from tests.support.programs import program
from tests.support.scripted_policy import ScriptedPolicy, serve
from tests.support.smtp_client import connected, no_questions_asked

_TEXT = b"Subject: x\r\n\r\ntext\r\n"


def _promtool(page: str) -> str:
    """What promtool has to say about metrics."""
    command = [program("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    return checked.stdout + checked.stderr


async def test_a_stop_finishes_the_mail_in_hand_and_ends_clean(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as ingress,
        connected(ingress.port) as idle,
        connected(ingress.port) as busy,
    ):
        await idle.hello()
        await busy.hello()
        await busy.begin()
        ingress.process.send_signal(signal.SIGTERM)
        assert (await idle.reply()).startswith("421 4.3.2 ")
        status, _ = await ingress.get("/readyz")
        assert status == 503
        reply = await busy.content(_TEXT)
        assert reply.startswith("250 2.0.0 ")
        assert (await busy.reply()).startswith("421 4.3.2 ")
        assert await ingress.ended() == 0
    lines = [json.loads(line) for line in ingress.log_file.read_text().splitlines()]
    (accepted,) = [line for line in lines if line["msg"] == "message accepted"]
    assert accepted["message"] == reply.rpartition(" ")[2]
    assert accepted["message"] == f"{accepted['session']}-1"
    warnings = [line["msg"] for line in lines if line["level"] not in ("info", "debug")]
    # On a machine with too much to do.
    assert not set(warnings) - {"event loop was blocked"}


async def test_metrics_pass_promtool_and_count(tmp_path: Path, nats_server: NatsServer) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as ingress,
    ):
        async with connected(ingress.port) as client:
            await client.hello()
            await client.start_tls()
            await client.say("EHLO client.example.net")
            assert (await client.mail(_TEXT)).startswith("250 ")
            await client.say("QUIT")
            await client.ended()

        async def counted() -> bool:
            _, page = await ingress.get("/metrics")
            return 'gatepost_ingress_sessions_total{end="quit",listener="mx"} 1.0' in page

        await eventually(counted)
        _, page = await ingress.get("/metrics")
        assert await asyncio.to_thread(_promtool, page) == ""
        for line in (
            'gatepost_ingress_messages_total{listener="mx",outcome="accepted"} 1.0',
            'gatepost_ingress_replies_total{code="250",command="CONTENT"} 1.0',
            'gatepost_ingress_tls_sessions_total{listener="mx",version="TLSv1.3"} 1.0',
            'gatepost_ingress_connections{listener="mx"} 0.0',
        ):
            assert line in page


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, nats_server: NatsServer) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target) as first,
    ):
        (tmp_path / "second").mkdir()
        listeners = [{"name": "mx", "address": "127.0.0.1", "port": first.port}]
        try:
            async with running_process(
                tmp_path / "second", nats_server, target, {"smtp": {"listeners": listeners}}
            ):
                raise AssertionError("it started")
        except AssertionError as error:
            said = str(error)
    assert "smtp.listeners.0.port" in said
    assert f"127.0.0.1:{first.port} is in use" in said
    assert "Traceback" not in said


def _certificate_names(port: int, server_name: str) -> set[str]:
    """The names in the certificate that a client gets which asks for `server_name`."""
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo("client.example.net")
        client._host = server_name  # type: ignore[attr-defined]
        client.starttls(context=no_questions_asked())
        assert isinstance(client.sock, ssl.SSLSocket)
        der = client.sock.getpeercert(binary_form=True)
    assert der is not None
    leaf = x509.load_der_x509_certificate(der)
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


async def test_certificates_are_chosen_by_name_and_exchanged_while_running(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    first = ensure_self_signed(tmp_path / "first", "mx.example.test")
    second = ensure_self_signed(tmp_path / "second", "mx.example.org")
    third = ensure_self_signed(tmp_path / "third", "new.example.org")
    link = tmp_path / "current"
    link.symlink_to(second.certificate.parent)
    tls = {
        "certificate_file": str(first.certificate),
        "key_file": str(first.key),
        "further": [{"certificate_file": str(link / "tls.crt"), "key_file": str(link / "tls.key")}],
    }
    async with (
        serve(policy) as target,
        running_process(tmp_path, nats_server, target, {"smtp": {"tls": tls}}) as ingress,
    ):

        async def names(server_name: str) -> set[str]:
            return await asyncio.to_thread(_certificate_names, ingress.port, server_name)

        assert "mx.example.org" in await names("mx.example.org")
        assert "mx.example.test" in await names("somebody.else.example")
        # As a Secret changes: another folder, and the link exchanged in one step.
        fresh = tmp_path / "fresh"
        fresh.symlink_to(third.certificate.parent)
        fresh.replace(link)

        async def exchanged() -> bool:
            return "new.example.org" in await names("new.example.org")

        await eventually(exchanged, seconds=15)


async def test_other_certificate_files_are_taken_up_once_they_are_there(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    policy = ScriptedPolicy()  # type: ignore[abstract]
    own = ensure_self_signed(tmp_path / "own", "mx.example.test")
    ready = ensure_self_signed(tmp_path / "ready", "new.example.org")
    further = [{"certificate_file": str(ready.certificate), "key_file": str(ready.key)}]
    late = tmp_path / "late"
    tls = {
        "certificate_file": str(late / "tls.crt"),
        "key_file": str(late / "tls.key"),
        "further": further,
    }
    config = tmp_path / "gatepost.yaml"
    async with (
        serve(policy) as target,
        running_process(
            tmp_path,
            nats_server,
            target,
            {"smtp": {"tls": {"certificate_file": str(own.certificate), "key_file": str(own.key)}}},
        ) as ingress,
    ):

        async def shown(server_name: str) -> str:
            [name] = await asyncio.to_thread(_certificate_names, ingress.port, server_name) - {
                "localhost"
            }
            return name

        async def logged(words: str) -> bool:
            return words in ingress.log_file.read_text(encoding="utf-8")

        changed = overlaid(
            yaml.safe_load(config.read_text(encoding="utf-8")), {"smtp": {"tls": tls}}
        )
        fresh = tmp_path / "fresh.yaml"
        fresh.write_text(yaml.safe_dump(changed), encoding="utf-8")
        fresh.replace(config)
        await eventually(lambda: logged("certificate rejected"), seconds=30)
        assert await shown("new.example.org") == "mx.example.test"
        ensure_self_signed(late, "late.example.org")

        async def exchanged() -> bool:
            return await shown("unknown.example.org") == "late.example.org"

        await eventually(exchanged, seconds=30)
        assert await shown("new.example.org") == "new.example.org"
        assert await shown("mx.example.test") == "late.example.org"
        _, page = await ingress.get("/metrics")
        assert str(own.certificate) not in page
        assert f'certificate_rejected{{certificate="{late}/tls.crt"}} 0.0' in page
        assert not await logged("restart")


@pytest.mark.parametrize("named_first", [True, False], ids=["no more", "for the first time"])
async def test_a_certificate_where_there_was_none_waits_for_a_restart(
    named_first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = ensure_self_signed(tmp_path, "mx.example.test")
    named = {"certificate_file": str(files.certificate), "key_file": str(files.key)}
    file = tmp_path / "gatepost.yaml"

    def write(tls: dict[str, str], hostname: str) -> None:
        values = {"smtp": {"hostname": hostname, "tls": tls}}
        file.write_text(yaml.safe_dump(values), encoding="utf-8")

    write(named if named_first else {}, "a.example.test")
    source = ConfigSource(file)
    tls = _server_tls(source)
    assert (tls is not None) == named_first
    write({} if named_first else named, "b.example.test")
    source.refresh()
    [line] = [text for text in caplog.messages if text.startswith("smtp.tls")]
    assert line.endswith("this takes effect after a restart")
