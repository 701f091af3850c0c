"""Mail to next hops over SMTP and LMTP: real sockets, scripted peers."""

from collections.abc import Mapping
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import (
    ContentReference,
    QueuedMessage,
    Recipient,
    RecipientState,
)
from services.common.jetstream import JetStream, Outgoing
from services.common.queue.content import chunk_digest, content_digest
from services.common.queue.subjects import CONTENT_STREAM, State, content_subject
from tests.support.delivery import (
    CONTENT,
    DESTINATION,
    RECIPIENT,
    Delivery,
    contents,
    events,
    mail,
    patience_with,
    queued,
    relay,
    submit,
    wait_queued,
)
from tests.support.smtp_peer import Drip, Drop, Raw, Script, Silence, SmtpPeer


def status(recipient: Recipient) -> tuple[int, str]:
    reply = recipient.last_status.reply
    return reply.code, reply.enhanced_code


async def test_what_arrives_is_what_was_accepted(store: JetStream) -> None:
    record = mail(RECIPIENT, f"Other@{DESTINATION}")
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        await submit(store, record)
        await wait_queued(store)
        (taken,) = peer.mails
        assert taken.mail_from == "me@example.org"
        assert taken.rcpt_to == [RECIPIENT, f"Other@{DESTINATION}"]
        assert taken.content == CONTENT
        assert peer.commands[0] == "EHLO mail.example.test"
    (happened,) = await events(store, record.message_id)
    assert happened.attempt.next_hop == f"[127.0.0.1]:{peer.port}"


@pytest.mark.parametrize(
    ("scripts", "outcome"),
    [
        ({"rcpt": "450 4.2.1 later"}, (450, "4.2.1")),
        ({"mail": "451 4.3.0 later"}, (451, "4.3.0")),
        ({"data": "452 4.3.1 full"}, (452, "4.3.1")),
        ({"dot": "451 4.7.1 greylisted"}, (451, "4.7.1")),
        ({"greeting": "421 4.3.2 busy"}, (421, "4.3.2")),
        ({"greeting": "554 5.3.2 no service"}, (554, "5.3.2")),
        ({"mail": "421 4.3.2 closing"}, (421, "4.3.2")),
        ({"data": "250 2.0.0 what"}, (451, "4.5.0")),
        ({"dot": "354 more"}, (451, "4.5.0")),
        ({"greeting": Drop()}, (451, "4.4.2")),
        ({"ehlo": Drop()}, (451, "4.4.2")),
        ({"rcpt": Drop()}, (451, "4.4.2")),
        ({"dot": Drop()}, (451, "4.4.2")),
        ({"greeting": Silence()}, (451, "4.4.2")),
        ({"mail": Silence()}, (451, "4.4.2")),
        ({"dot": Silence()}, (451, "4.4.2")),
        ({"greeting": Drip("220 peer.test says a lot", 0.2)}, (451, "4.4.2")),
        ({"mail": Raw(b"250-and on\r\n" * 200)}, (451, "4.5.0")),
        ({"mail": Raw(b"250-" + b"x" * 100_000)}, (451, "4.5.0")),
        ({"mail": Raw(b"\x00\xff\xfe garbage\r\n")}, (451, "4.5.0")),
        ({"greeting": Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")}, (451, "4.5.0")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("pipelining", [False, True], ids=["in turn", "pipelined"])
async def test_temporary_failures_defer(
    store: JetStream, scripts: Mapping[str, Script], outcome: tuple[int, str], pipelining: bool
) -> None:
    permanent = outcome[0] >= 500
    async with (
        SmtpPeer(**scripts, pipelining=pipelining) as peer,
        Delivery(store, relay(peer), patience=patience_with(scripts)),
    ):
        record = mail(RECIPIENT, sender="" if permanent else "me@example.org")
        await submit(store, record)
        if permanent:
            await wait_queued(store)
        else:
            (deferred,) = await wait_queued(store, State.DEFERRED)
            (recipient,) = deferred.recipients
            assert status(recipient) == outcome
            assert deferred.attempts == 1
            assert deferred.WhichOneof("content") == "content_reference"
            assert str(outcome[0]) in deferred.wait_reason
    (happened,) = await events(store, record.message_id)
    assert happened.attempt.recipients[0].reply.code == outcome[0]


@pytest.mark.parametrize(
    ("scripts", "record_fields", "enhanced"),
    [
        ({"rcpt": "550 5.1.1 unknown"}, {}, "5.1.1"),
        ({"mail": "550 5.7.1 blocked"}, {}, "5.7.1"),
        ({"data": "554 5.5.1 no valid recipients"}, {}, "5.5.1"),
        ({"dot": "554 5.6.0 looks bad"}, {}, "5.6.0"),
        ({"extensions": ["SIZE 10"]}, {}, "5.3.4"),
        ({"extensions": []}, {"smtputf8": True, "inline_content": "From: ü\r\n\r\n"}, "5.6.7"),
        ({"extensions": []}, {"body": "8BITMIME", "inline_content": "A: b\r\n\r\nü\r\n"}, "5.6.3"),
    ],
    ids=repr,
)
async def test_permanent_failures_are_told_to_the_sender(
    store: JetStream,
    scripts: Mapping[str, Any],
    record_fields: dict[str, Any],
    enhanced: str,
) -> None:
    content = record_fields.pop("inline_content", "A: b\r\n\r\nhello\r\n").encode()
    async with SmtpPeer(**scripts) as peer:
        config = relay(peer)
        config["domains"]["relay"]["example.org"] = "smtp:127.0.0.1:1"  # where the report waits
        async with Delivery(store, config):
            await submit(store, mail(RECIPIENT, content=content, **record_fields))
            (report,) = await wait_queued(store, State.DEFERRED)
    assert (report.sender, report.recipients[0].address) == ("", "me@example.org")
    chunk = await store.last(
        CONTENT_STREAM, content_subject(report.content_reference.content_id, 1)
    )
    assert chunk is not None
    assert f"Status: {enhanced}".encode() in chunk.data
    kind = "utf-8" if enhanced == "5.6.7" else "rfc822"
    assert f"Final-Recipient: {kind}; {RECIPIENT}".encode() in chunk.data
    assert len(await contents(store)) == 1


@pytest.mark.parametrize("pipelining", [False, True], ids=["in turn", "pipelined"])
async def test_each_recipient_has_its_own_outcome(store: JetStream, pipelining: bool) -> None:
    addresses = [f"{name}@{DESTINATION}" for name in ("good", "unknown", "greylisted")]
    replies: list[Any] = ["250 ok", "550 5.1.1 unknown", "450 4.7.1 later", "250 ok"]
    async with (
        SmtpPeer(rcpt=replies, pipelining=pipelining) as peer,
        Delivery(store, relay(peer)),
    ):
        await submit(store, mail(*addresses, sender=""))
        (deferred,) = await wait_queued(store, State.DEFERRED)
        assert [recipient.state for recipient in deferred.recipients] == [
            RecipientState.RECIPIENT_STATE_DELIVERED,
            RecipientState.RECIPIENT_STATE_FAILED,
            RecipientState.RECIPIENT_STATE_PENDING,
        ]
        await submit_again(store, deferred)
        await wait_queued(store)
        assert [taken.rcpt_to for taken in peer.mails] == [[addresses[0]], [addresses[2]]]
    assert await contents(store) == []


async def submit_again(store: JetStream, record: QueuedMessage) -> None:
    """Do what the server does when a record is due."""
    (state_and_record,) = await queued(store)
    await store.purge("QUEUE", f"queue.{state_and_record[0]}.>")
    await submit(store, record)


@pytest.mark.parametrize("data", ["354 go on", "554 5.5.1 no valid recipients"])
async def test_pipelining_with_no_recipient_left_sends_no_content(
    store: JetStream, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.delivery.smtp.pool.IDLE_S", 60.0)
    async with (
        SmtpPeer(rcpt="550 5.1.1 unknown", data=data, pipelining=True) as peer,
        Delivery(store, relay(peer)),
    ):
        for _ in range(2):
            record = mail(RECIPIENT, sender="")
            await submit(store, record)
            await wait_queued(store)
        assert all(taken.content == b"" for taken in peer.mails)
        # The session is in order after it: the second mail went over the same one.
        assert peer.connections == 1
    (happened,) = await events(store, record.message_id)
    assert happened.attempt.recipients[0].reply.enhanced_code == "5.1.1"


async def test_lmtp_answers_for_each_recipient(store: JetStream) -> None:
    dots: list[Any] = ["250 2.0.0 ok", "552 5.2.2 over quota", "250 2.0.0 ok"]
    addresses = [f"{name}@{DESTINATION}" for name in ("a", "b", "c")]
    record = mail(*addresses, sender="")
    async with SmtpPeer(dot=dots, lmtp=True) as peer, Delivery(store, relay(peer, "lmtp")):
        await submit(store, record)
        await wait_queued(store)
        assert peer.commands[0].startswith("LHLO ")
    (happened,) = await events(store, record.message_id)
    assert [each.reply.code for each in happened.attempt.recipients] == [250, 552, 250]


async def test_content_from_the_stream_is_sent_whole_and_removed(store: JetStream) -> None:
    body = b"".join(b".%d some line of a mail\r\n" % number for number in range(60_000))
    whole = b"Subject: large\r\n\r\n" + body
    record = mail(RECIPIENT)
    await refer(store, record, whole)
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        await submit(store, record)
        await wait_queued(store)
        assert peer.mails[0].content == whole
    assert await contents(store) == []


async def refer(store: JetStream, record: QueuedMessage, content: bytes) -> None:
    """Store a content in chunks and have the record refer to it."""
    chunks = [content[at : at + 500_000] for at in range(0, len(content), 500_000)]
    for number, chunk in enumerate(chunks, start=1):
        await store.publish(Outgoing(content_subject(record.message_id, number), chunk))
    record.content_reference.CopyFrom(
        ContentReference(
            content_id=record.message_id,
            chunks=len(chunks),
            sha256=content_digest([chunk_digest(chunk) for chunk in chunks]),
        )
    )
    record.size = len(content)


@pytest.mark.parametrize("damage", ["altered", "missing"])
async def test_damaged_content_never_gets_its_final_dot(store: JetStream, damage: str) -> None:
    record = mail(RECIPIENT)
    await refer(store, record, b"Subject: large\r\n\r\n" + b"line\r\n" * 200_000)
    subject = content_subject(record.message_id, 2)
    await store.purge(CONTENT_STREAM, subject)
    if damage == "altered":
        await store.publish(Outgoing(subject, b"something else\r\n"))
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        await submit(store, record)
        (deferred,) = await wait_queued(store, State.DEFERRED)
        assert peer.mails == []
    assert status(deferred.recipients[0]) == (451, "4.3.0")


async def test_content_is_shared_until_its_last_record_is_done(store: JetStream) -> None:
    first = mail(RECIPIENT)
    await refer(store, first, b"Subject: shared\r\n\r\nbody\r\n")
    second = QueuedMessage()
    second.CopyFrom(first)
    second.destination = "example.test"
    second.recipients[0].address = "you@example.test"
    async with SmtpPeer() as peer:
        config = relay(peer)
        config["domains"]["relay"]["example.test"] = "smtp:127.0.0.1:1"
        async with Delivery(store, config):
            await submit(store, first, second)
            await wait_queued(store, State.DEFERRED)
            await peer.wait_mails(1)
            assert await contents(store) == [content_subject(first.message_id, 1)]
            config["domains"]["relay"]["example.test"] = f"smtp:127.0.0.1:{peer.port}"
    async with SmtpPeer() as peer:
        config["domains"]["relay"]["example.test"] = f"smtp:127.0.0.1:{peer.port}"
        async with Delivery(store, config):
            ((_, waiting),) = await queued(store)
            await submit_again(store, waiting)
            await wait_queued(store)
    assert await contents(store) == []


async def test_sessions_are_used_again(store: JetStream) -> None:
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        for _ in range(3):
            await submit(store, mail(RECIPIENT))
            await wait_queued(store)
        assert (len(peer.mails), peer.connections) == (3, 1)


async def test_a_session_that_died_in_the_meantime_costs_nothing(store: JetStream) -> None:
    async with SmtpPeer() as peer, Delivery(store, relay(peer)):
        await submit(store, mail(RECIPIENT))
        await wait_queued(store)
        peer.script(mail=["421 4.4.2 idle for too long", "250 ok"])
        await submit(store, mail(RECIPIENT))
        await wait_queued(store)
        assert (len(peer.mails), peer.connections) == (2, 2)
