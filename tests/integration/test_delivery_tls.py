"""Encryption on the way out, and smarthosts: who is spoken to, in what way, and with what words."""

import base64
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from services.delivery.tls.sts_policy import Mode, StsPolicy
from services.delivery.tls.sts_store import Fetched, StsStore
from tests.support.delivery import (
    CONTENT,
    DESTINATION,
    RECIPIENT,
    Delivery,
    events,
    mail,
    patience_with,
    relay,
    submit,
    wait_queued,
)
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import Raw, Silence, SmtpPeer, Then


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("smarthost.test", "127.0.0.1").configure_cert(context)
    return context


async def test_what_can_be_encrypted_is(store: JetStream, server_tls: ssl.SSLContext) -> None:
    record = mail(RECIPIENT)
    async with SmtpPeer(tls=server_tls) as peer, Delivery(store, relay(peer)):
        await submit(store, record)
        await wait_queued(store)
        assert peer.mails[0].tls
    (happened,) = await events(store, record.message_id)
    assert happened.attempt.tls_version.startswith("TLSv1.")


@pytest.mark.parametrize(
    "scripts",
    [
        {},
        {"extensions": ["STARTTLS"], "starttls": "454 4.7.0 not now"},
        {"extensions": ["STARTTLS"], "starttls": Then(["220 go", Raw(b"no TLS here")])},
        {"extensions": ["STARTTLS"], "starttls": Raw(b"220 go\r\n250 injected\r\n")},
    ],
    ids=repr,
)
async def test_required_tls_is_never_given_up(store: JetStream, scripts: Mapping[str, Any]) -> None:
    async with SmtpPeer(**scripts) as peer:
        async with Delivery(store, relay(peer, require_tls=True)):
            await submit(store, mail(RECIPIENT))
            (deferred,) = await wait_queued(store, State.DEFERRED)
        assert not any(command.startswith("MAIL") for command in peer.commands)
    assert deferred.recipients[0].last_status.reply.code == 451


async def test_broken_tls_is_better_than_no_mail(store: JetStream) -> None:
    scripts: dict[str, Any] = {"starttls": Then(["220 go", Silence()])}
    eager = {"retry": {"interval": "1s"}, "backoff": {"initial": "1s", "limit": "1s"}}
    async with (
        SmtpPeer(extensions=["STARTTLS"], **scripts) as peer,
        Delivery(store, relay(peer, **eager), patience=patience_with(scripts)),
    ):
        await submit(store, mail(RECIPIENT))
        await wait_queued(store)
        assert not peer.mails[0].tls


@pytest.mark.parametrize("demand", ["require_tls", "mta_sts", "dane"])
async def test_the_notification_says_that_encryption_could_not_be_had(
    store: JetStream, tmp_path: Path, demand: str
) -> None:
    exchange = f"mx.{DESTINATION}"
    policy = StsPolicy(Mode.ENFORCE, (exchange,), timedelta(days=1))
    now = datetime.now(UTC)
    policies = StsStore(store, now=lambda: now, clock=time.monotonic)
    await policies.keep(DESTINATION, Fetched(policy, "1", now))
    async with SmtpPeer() as peer:
        records = f"_{peer.port}._tcp.{exchange}"
        resolver = FakeResolver(
            {
                (DESTINATION, "MX"): [f"10 {exchange}"],
                (exchange, "A"): ["127.0.0.1"],
                (records, "TLSA"): ["3 1 1 " + "00" * 32],
            },
            authentic={DESTINATION, exchange, records},
        )
        config = {
            "domains": {"local": ["example.org"]},
            "mailbox": {"directory": str(tmp_path)},
            "dns": {"validating": True},
            "delivery": {
                "retry": {"max_retries": 0},
                "allowed_networks": ["127.0.0.1"],
                "require_tls": demand == "require_tls",
                "mta_sts": demand == "mta_sts",
                "dane": demand == "dane",
            },
        }
        async with Delivery(store, config, resolver=resolver, mx_port=peer.port):
            await submit(store, mail(RECIPIENT))
            await wait_queued(store)
        assert not peer.mails
    (file,) = (tmp_path / "example.org" / "me" / "new").iterdir()
    told = " ".join(file.read_text().split())
    who = {"require_tls": "", "mta_sts": f"MTA-STS of {DESTINATION}: ", "dane": "DANE: "}[demand]
    why = f"{who}the next hop must encrypt, and it does not offer STARTTLS"
    assert f"451 4.7.10 {why}" in told
    assert "Action: failed" in told


async def test_with_a_smarthost_nobody_asks_for_the_policies_of_destinations(
    store: JetStream,
) -> None:
    resolver = FakeResolver()
    async with SmtpPeer() as peer:
        config = {
            "dns": {"validating": True},
            "delivery": {"smarthost": {"host": "127.0.0.1", "port": peer.port}},
        }
        record = mail(RECIPIENT)
        async with Delivery(store, config, resolver=resolver):
            await submit(store, record)
            await wait_queued(store)
        assert len(peer.mails) == 1
    assert not resolver.queries
    (happened,) = await events(store, record.message_id)
    assert not happened.attempt.tls_sessions


def smarthost(peer: SmtpPeer, folder: Path, **fields: Any) -> dict[str, Any]:
    password = folder / "password"
    password.write_text("geheim\n", encoding="utf-8")
    values = {
        "host": "127.0.0.1",
        "port": peer.port,
        "username": "me",
        "password_file": str(password),
    }
    return {"delivery": {"smarthost": {**values, **fields}}}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_smarthost_gets_credentials_over_verified_tls(
    store: JetStream,
    authority: trustme.CA,
    server_tls: ssl.SSLContext,
    tmp_path: Path,
    mechanism: str,
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    auth: list[Any] = (
        ["235 ok"] if mechanism == "PLAIN" else ["334 VXNlcg==", "334 UGFzcw==", "235 ok"]
    )
    peer = SmtpPeer(tls=server_tls, extensions=[f"AUTH {mechanism}"], auth=auth)
    async with peer:
        config = smarthost(peer, tmp_path, ca_file=str(ca_file))
        async with Delivery(store, config):
            await submit(store, mail("you@far.test"))
            await wait_queued(store)
        assert peer.mails[0].tls
        said = {
            "PLAIN": ["AUTH PLAIN AG1lAGdlaGVpbQ=="],
            "LOGIN": ["AUTH LOGIN", "bWU=", "Z2VoZWlt"],
        }
        at = next(n for n, command in enumerate(peer.commands) if command.startswith("AUTH"))
        assert peer.commands[at:][: len(said[mechanism])] == said[mechanism]


@pytest.mark.parametrize(
    ("scripts", "with_tls", "with_ca"),
    [
        ({}, False, True),  # no TLS: no credentials
        ({"extensions": ["AUTH PLAIN"]}, True, False),  # a certificate that nobody vouches for
        ({"extensions": ["AUTH PLAIN"], "auth": "535 5.7.8 wrong"}, True, True),
        ({"extensions": ["AUTH CRAM-MD5"]}, True, True),
    ],
    ids=repr,
)
async def test_a_smarthost_that_does_not_take_us_defers(
    store: JetStream,
    authority: trustme.CA,
    server_tls: ssl.SSLContext,
    tmp_path: Path,
    scripts: Mapping[str, Any],
    with_tls: bool,
    with_ca: bool,
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with SmtpPeer(**scripts, tls=server_tls if with_tls else None) as peer:
        config = smarthost(peer, tmp_path, **({"ca_file": str(ca_file)} if with_ca else {}))
        async with Delivery(store, config):
            await submit(store, mail("you@far.test"))
            (deferred,) = await wait_queued(store, State.DEFERRED)
        assert not any(command.startswith("MAIL") for command in peer.commands)
    assert deferred.recipients[0].last_status.reply.code == 451
    assert "geheim" not in deferred.wait_reason


@pytest.mark.parametrize("refused", [False, True])
async def test_a_token_stands_for_a_password(
    store: JetStream,
    authority: trustme.CA,
    server_tls: ssl.SSLContext,
    tmp_path: Path,
    refused: bool,
) -> None:
    ca_file, token = tmp_path / "ca.pem", tmp_path / "token"
    authority.cert_pem.write_to_path(ca_file)
    token.write_text("ya29.token\n", encoding="utf-8")
    auth: list[Any] = ["334 eyJzdGF0dXMiOiI0MDAifQ==", "535 5.7.8 expired"]
    peer = SmtpPeer(
        tls=server_tls,
        extensions=["AUTH PLAIN XOAUTH2"],
        auth=auth if refused else "235 2.7.0 ok",
    )
    async with peer:
        config = smarthost(peer, tmp_path, ca_file=str(ca_file), token_file=str(token))
        del config["delivery"]["smarthost"]["password_file"]
        async with Delivery(store, config):
            await submit(store, mail("you@far.test"))
            await wait_queued(store, *([State.DEFERRED] if refused else []))
        (said,) = [command for command in peer.commands if command.startswith("AUTH")]
        token_said = base64.b64decode(said.split()[2])
        assert token_said == b"user=me\x01auth=Bearer ya29.token\x01\x01"


async def test_the_next_smarthost_is_tried_when_one_cannot_be_talked_to(store: JetStream) -> None:
    async with SmtpPeer() as peer:
        config = {
            "delivery": {
                "smarthost": {
                    "host": "127.0.0.1",
                    "port": 1,
                    "alternatives": [
                        {"host": "nowhere.test"},
                        {"host": "127.0.0.1", "port": peer.port},
                    ],
                }
            }
        }
        async with Delivery(store, config):
            await submit(store, mail("you@far.test"))
            await wait_queued(store)
        assert len(peer.mails) == 1


async def test_a_mail_store_takes_local_mail_over_lmtp(store: JetStream) -> None:
    async with SmtpPeer(lmtp=True) as peer:
        config = {
            "domains": {"local": ["example.test"]},
            "mailbox": {"kind": "lmtp", "lmtp": f"127.0.0.1:{peer.port}"},
            # What is demanded of the way out is not demanded of our own mail store.
            "delivery": {"require_tls": True},
        }
        async with Delivery(store, config):
            await submit(store, mail("you@example.test"))
            await wait_queued(store)
        assert peer.mails[0].content == CONTENT
