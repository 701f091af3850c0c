"""Postfix as the server that relays to us: its own queue, its own pipelining, its own retries."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

import pytest

from services.common.mail.message import parse_header
from tests.support.edge import RunningEdge, StoredMail, running_edge
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.postfix import Postfix, relaying
from tests.support.programs import program
from tests.support.scripted_policy import refusal

_EIGHT_BIT = (
    "From: sender@example.net\r\nTo: you@example.test\r\nSubject: eight bits\r\n"
    "Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <8@example.net>\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..dots\r\ngr\u00fc\u00dfe\r\n.\r\n"
)


def _submit(postfix: Postfix, content: bytes, *recipients: str, options: tuple[str, ...]) -> None:
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example.net", timeout=30) as client:
        client.sendmail("sender@example.net", list(recipients), content, list(options))


async def _relayed(
    edge: RunningEdge,
    postfix: Postfix,
    content: bytes,
    *recipients: str,
    options: tuple[str, ...] = (),
) -> list[StoredMail]:
    """What is in the queue after Postfix has nothing left."""
    await asyncio.to_thread(_submit, postfix, content, *recipients, options=options)
    await postfix.emptied()
    return await edge.mails()


@pytest.mark.parametrize(("tls", "protocol"), [("none", "ESMTP"), ("encrypt", "ESMTPS")])
async def test_content_and_trace(
    tls: str, protocol: str, tmp_path: Path, nats_server: NatsServer
) -> None:
    content = _EIGHT_BIT.encode()
    async with (
        running_edge(tmp_path, nats_server) as edge,
        relaying(edge.port(), tls=tls) as postfix,
    ):
        (mail,) = await _relayed(
            edge, postfix, content, "you@example.test", options=("BODY=8BITMIME",)
        )
    received = parse_header(mail.content).fields[0].text
    assert received.startswith("from relay.example.net ([127.0.0.1])")
    assert f" with {protocol} " in received
    assert mail.content.endswith(content.partition(b"\r\n\r\n")[2])
    assert mail.record.body == "8BITMIME"


async def test_large_mail_and_dsn(tmp_path: Path, nats_server: NatsServer) -> None:
    body = b"".join(b"%070d\r\n" % number for number in range(60_000))
    async with (
        running_edge(tmp_path, nats_server) as edge,
        relaying(edge.port()) as postfix,
    ):
        (mail,) = await _relayed(
            edge,
            postfix,
            b"From: sender@example.net\r\nSubject: large\r\n\r\n" + body,
            "you@example.test",
            options=("RET=HDRS", "ENVID=QQ314159"),
        )
    assert mail.content.endswith(b"\r\n\r\n" + body)
    assert (mail.record.ret, mail.record.envid) == ("HDRS", "QQ314159")
    assert mail.record.recipients[0].orcpt == "rfc822;you@example.test"


async def test_many_sessions_with_many_recipients(tmp_path: Path, nats_server: NatsServer) -> None:
    async with (
        running_edge(tmp_path, nats_server) as edge,
        relaying(edge.port()) as postfix,
    ):
        source = await asyncio.create_subprocess_exec(
            program("smtp-source"),
            *("-s", "10", "-m", "60", "-r", "20", "-l", "3000", "-f", "sender@example.net"),
            *("-t", "me@example.test", f"inet:127.0.0.1:{postfix.port}"),
        )
        assert await source.wait() == 0
        await postfix.emptied(seconds=45)
        mails = await edge.mails()
        calls = len(edge.policy.envelopes)
    assert len(mails) == 60
    assert sum(len(mail.record.recipients) for mail in mails) == 60 * 20
    # Its recipients come together, and are asked about together.
    assert calls < 60 * 10


async def test_what_is_put_off_comes_again_and_what_is_refused_does_not(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    later, strict = "later@example.test", "strict@example.org"
    async with (
        running_edge(tmp_path, nats_server) as edge,
        relaying(edge.port()) as postfix,
    ):
        edge.policy.recipients[later] = refusal(451, "4.7.1", "Greylisted")
        edge.policy.recipients["no@example.test"] = refusal(550, "5.1.1", "No such mailbox")
        edge.policy.rules[strict] = "example.org"
        # The notification about the one that is refused comes to us as well.
        edge.policy.deliver_to["sender@example.net"] = ["sender@example.net"]
        recipients = ("you@example.test", later, strict, "no@example.test")
        content = b"From: sender@example.net\r\nSubject: parts\r\n\r\ntext\r\n"
        await asyncio.to_thread(_submit, postfix, content, *recipients, options=())

        async def was_put_off() -> bool:
            return "Greylisted" in postfix.log()

        await eventually(was_put_off, seconds=30)
        del edge.policy.recipients[later]
        await postfix.emptied()
        mails = await edge.mails()
        assert "said: 550 5.1.1 No such mailbox" in postfix.log()
    told = sorted(each.address for mail in mails for each in mail.record.recipients)
    wanted = sorted(["you@example.test", later, strict, "sender@example.net"])
    assert told == wanted, postfix.log()
    # One verdict, one set of rules.
    assert not [
        mail for mail in mails if len(mail.record.recipients) > 1 and strict in str(mail.record)
    ]
