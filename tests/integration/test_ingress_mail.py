"""What becomes of an accepted mail: content, records, trace, what policy is told."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from dkim.canonicalization import Relaxed

from gatepost.policy.v1.verdict_pb2 import Action, HeaderField, Verdict
from services.common.mail.message import parse_header, split_message
from tests.support.edge import running_edge
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.smtp_client import connected

_HEADER = b"From: sender@example.net\r\nSubject: x\r\n"
_TEXT = _HEADER + b"\r\ntext\r\n"


def _body(octets: int) -> bytes:
    line = b"0123456789" * 7 + b"\r\n"
    return (line * (octets // len(line) + 1))[: octets - 2] + b"\r\n"


@pytest.mark.parametrize("octets", [1_000, 262_000, 262_144, 300_000, 5_000_000])
async def test_content_arrives_octet_for_octet(
    octets: int, tmp_path: Path, nats_server: NatsServer
) -> None:
    wire = _HEADER + b"\r\n" + _body(octets)
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            assert (await client.mail(wire)).startswith("250 2.0.0")
        (mail,) = await edge.mails()
    header, body = split_message(mail.content)
    assert body == _body(octets)
    assert header.endswith(_HEADER)
    assert mail.record.size == len(mail.content)


@pytest.mark.parametrize("rest", [b"\r\ntext\r\n", b""], ids=["body", "no body"])
async def test_white_space_on_top_does_not_continue_our_fields(
    rest: bytes, tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        edge.policy.header_fields.append(HeaderField(name="X-Gatepost-Verdict", value="spam"))
        async with connected(edge.port()) as client:
            await client.hello()
            wire = b" or clean\r\n\tor clean\r\n" + _HEADER + rest
            assert (await client.mail(wire)).startswith("250 2.0.0")
        (mail,) = await edge.mails()
        (request,) = edge.policy.messages
    header, body = split_message(mail.content)
    assert header.endswith(b"X-Gatepost-Verdict: spam\r\n" + _HEADER)
    assert body == rest.removeprefix(b"\r\n")
    assert mail.record.size == len(mail.content)
    # Judged is what is stored.
    assert request.header.header_block == _HEADER


async def test_a_mail_to_three_domains_is_three_records_of_one_id(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        edge.policy.deliver_to["list@example.test"] = ["a@example.test", "b@far.example"]
        async with connected(edge.port()) as client:
            await client.hello()
            reply = await client.mail(_TEXT, "list@example.test", "c@example.org")
        mails = await edge.mails()
    assert {mail.record.destination for mail in mails} == {
        "example.test",
        "far.example",
        "example.org",
    }
    assert {mail.record.message_id for mail in mails} == {reply.rpartition(" ")[2]}
    assert len({mail.content for mail in mails}) == 1
    assert b" for <" not in mails[0].content


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "pipelined"])
async def test_letter_case_tells_mailboxes_elsewhere_apart_and_not_ours(
    pipelined: bool, tmp_path: Path, nats_server: NatsServer
) -> None:
    far = ["JSmith@remote.example", "jsmith@remote.example"]
    recipients = ["You@example.test", *far, "you@EXAMPLE.test", "jsmith@Remote.Example"]
    commands = [f"RCPT TO:<{recipient}>" for recipient in recipients]
    commands[0] += " NOTIFY=FAILURE"
    commands[2] += " NOTIFY=SUCCESS"
    async with running_edge(tmp_path, nats_server) as edge:
        edge.policy.deliver_to |= {address: [address] for address in far}
        edge.policy.deliver_to["You@example.test"] = ["you@example.test"]
        async with connected(edge.port()) as client:
            await client.hello()
            await client.say("MAIL FROM:<sender@example.net>")
            if pipelined:
                client.send("".join(f"{command}\r\n" for command in commands).encode())
            for command in commands:
                reply = await (client.reply() if pipelined else client.say(command))
                assert reply.startswith("250 ")
            await client.say("DATA")
            assert (await client.content(_TEXT)).startswith("250 ")
        mails = await edge.mails()
    assert {
        mail.record.destination: [
            (recipient.address, list(recipient.notify)) for recipient in mail.record.recipients
        ]
        for mail in mails
    } == {
        "example.test": [("you@example.test", ["FAILURE"])],
        "remote.example": [(far[0], []), (far[1], ["SUCCESS"])],
    }


async def test_large_mail_to_many_domains_is_stored_once(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    domains = [f"d{number}.example" for number in range(20)]
    async with running_edge(tmp_path, nats_server) as edge:
        recipients = [f"you@{domain}" for domain in domains]
        edge.policy.deliver_to.update({recipient: [recipient] for recipient in recipients})
        async with connected(edge.port()) as client:
            await client.hello()
            reply = await client.mail(_HEADER + b"\r\n" + _body(200_000), *recipients)
            assert reply.startswith("250 ")
        mails = await edge.mails()
        assert await edge.chunks() == 1
    assert {mail.record.destination for mail in mails} == set(domains)


async def test_the_trace_says_how_it_came(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            await client.start_tls()
            await client.say("EHLO client.example.net")
            await client.mail(_TEXT)
        (mail,) = await edge.mails()
    received = parse_header(mail.content).fields[0].text
    assert re.fullmatch(
        r"from client\.example\.net \(\[127\.0\.0\.1\]\) by mx\.example\.test \(Gatepost\)"
        r" with ESMTPS \(version=TLSv1\.3 cipher=TLS_\w+\)"
        rf" id {mail.record.message_id} for <you@example\.test>; .* \+0000",
        received,
    )


async def test_policy_is_told_everything_and_its_fields_are_on_top(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    signature = b"DKIM-Signature: v=1; c=relaxed/relaxed; b=x\r\n"
    forged = b"X-Spam-Flag: NO\r\nAuthentication-Results: mx.example.test; spf=pass\r\n"
    wire = signature + forged + _HEADER + b"\r\n" + _body(300_000)
    async with running_edge(tmp_path, nats_server) as edge:
        edge.policy.message = Verdict(action=Action.ACTION_SPAM)
        edge.policy.header_fields = [HeaderField(name="X-Spam-Flag", value="YES")]
        async with connected(edge.port()) as client:
            await client.hello()
            await client.mail(wire, "you@example.test", "me@example.test")
        (mail,) = await edge.mails()
        envelopes, (message,) = edge.policy.envelopes, edge.policy.messages
    assert [list(request.recipients) for request in envelopes] == [
        ["you@example.test"],
        ["me@example.test"],
    ]
    for request in (*envelopes, message):
        assert request.message_id == mail.record.message_id
        assert request.sender == "sender@example.net"
        assert request.session.client_address == "127.0.0.1"
        assert request.session.helo == "client.example.net"
        assert request.session.listener == "mx"
        assert not request.dry_run
    assert message.header.header_block == signature + forged + _HEADER
    assert message.header.size == len(wire)
    assert [result.check for result in message.envelope_results] == ["spf_mismatch"]
    (digest,) = message.header.body_digests
    canonical = Relaxed.canonicalize_body(_body(300_000))
    assert digest.digest == hashlib.sha256(canonical).digest()
    assert [field.name for field in parse_header(mail.content).fields] == [
        "Received",
        "X-Spam-Flag",
        "DKIM-Signature",
        "From",
        "Subject",
    ]
    assert mail.record.spam


async def test_policy_is_asked_once_about_recipients_that_come_together(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    recipients = [f"u{number}@example.test" for number in range(120)]
    commands = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients)
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            client.send(f"MAIL FROM:<sender@example.net>\r\n{commands}DATA\r\n".encode())
            replies = [await client.reply() for _ in range(122)]
            assert {reply[:3] for reply in replies[:-1]} == {"250"}
            assert (await client.content(_TEXT)).startswith("250 ")
        calls = edge.policy.envelopes
        (mail,) = await edge.mails()
    # How they are cut into segments is not ours to say.
    assert [each for call in calls for each in call.recipients] == recipients
    assert len(calls) < 20
    assert len(mail.record.recipients) == 120


async def test_submissions_are_completed_and_named(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port("submissions"), tls=True) as client:
            await client.hello()
            reply = await client.say("AUTH PLAIN AHlvdUBleGFtcGxlLnRlc3QAc2VjcmV0")
            assert reply.startswith("235 ")
            await client.begin("friend@example.org", sender="you@example.test")
            assert (await client.content(b"From: you@example.test\r\n\r\n")).startswith("250 ")
        (mail,) = await edge.mails()
        assert edge.policy.messages[0].session.authenticated_account == "you@example.test"
    header = parse_header(mail.content)
    assert [field.name for field in header.fields] == ["Received", "Date", "Message-ID", "From"]
    assert " with ESMTPSA " in header.fields[0].text
    assert mail.record.authenticated_account == "you@example.test"


async def test_recipients_above_the_limit_wait_and_the_others_go(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    limits = {"smtp": {"limits": {"recipients": 100}}}
    async with running_edge(tmp_path, nats_server, limits) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            await client.say("MAIL FROM:<sender@example.net>")
            replies = [await client.say(f"RCPT TO:<u{n}@example.test>") for n in range(110)]
            assert replies[:100] == ["250 2.1.5 Recipient OK"] * 100
            assert all(reply.startswith("452 4.5.3 ") for reply in replies[100:])
            # One that is in already is not one more.
            assert await client.say("RCPT TO:<u7@EXAMPLE.test>") == replies[0]
            assert (await client.say("DATA")).startswith("354 ")
            assert (await client.content(_TEXT)).startswith("250 ")
        (mail,) = await edge.mails()
    assert len(mail.record.recipients) == 100


async def test_two_equal_mails_are_two_mails(tmp_path: Path, nats_server: NatsServer) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        async with connected(edge.port()) as client:
            await client.hello()
            replies = {await client.mail(_TEXT) for _ in range(2)}
        assert len(replies) == 2
        assert len(await edge.mails()) == 2


async def test_a_client_that_is_gone_by_then_does_not_stop_its_mail(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with running_edge(tmp_path, nats_server) as edge:
        edge.policy.delay_s = 0.2
        async with connected(edge.port()) as client:
            await client.hello()
            await client.begin()
            client.send(_TEXT + b".\r\n")

            async def judging() -> bool:
                return bool(edge.policy.messages)

            await eventually(judging)
        await eventually(edge.mails)
