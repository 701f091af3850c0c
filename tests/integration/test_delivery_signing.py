"""Outgoing mail is signed through `keys`, and never leaves unsigned because that is away."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from dkim.canonicalization import Relaxed

from gatepost.keys.v1 import keys_pb2, keys_pb2_grpc
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from tests.support.delivery import (
    CONTENT,
    RECIPIENT,
    Delivery,
    mail,
    relay,
    submit,
    wait_queued,
)
from tests.support.smtp_peer import SmtpPeer

FIELDS = (b"DKIM-Signature: v=1; s=rsa\r\n", b"DKIM-Signature: v=1; s=ed\r\n")


class ScriptedKeys(keys_pb2_grpc.KeyServiceServicer):
    """Signs with fixed fields, or fails with `code`; `asked` tells what was to be signed."""

    def __init__(self) -> None:
        self.asked: list[keys_pb2.SignMessageRequest] = []
        self.fields: tuple[bytes, ...] = FIELDS
        self.code: grpc.StatusCode | None = None

    async def SignMessage(
        self, request: keys_pb2.SignMessageRequest, context: Any
    ) -> keys_pb2.SignMessageResponse:
        self.asked.append(request)
        if self.code is not None:
            await context.abort(self.code, "as the test wants")
        signed = keys_pb2.SIGNING_OUTCOME_SIGNED
        return keys_pb2.SignMessageResponse(
            outcome=signed if self.fields else keys_pb2.SIGNING_OUTCOME_NO_KEY,
            signatures=[keys_pb2.Signature(header_field=field) for field in self.fields],
        )


ScriptedKeys.__abstractmethods__ = frozenset()  # the other methods are never called


@pytest.fixture
def keys() -> ScriptedKeys:
    return ScriptedKeys()


@pytest.fixture
async def keys_address(keys: ScriptedKeys) -> AsyncIterator[str]:
    server = grpc.aio.server()
    keys_pb2_grpc.add_KeyServiceServicer_to_server(keys, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def signing(peer: SmtpPeer, *, enabled: bool = True) -> dict[str, Any]:
    return relay(peer, dkim={"enabled": enabled})


def submitted(content: bytes = CONTENT, **fields: Any) -> QueuedMessage:
    return mail(RECIPIENT, content=content, **fields)


async def test_signatures_stand_in_front_of_what_was_signed(
    store: JetStream, keys: ScriptedKeys, keys_address: str
) -> None:
    content = b"From: me@example.org\r\nSubject: x\r\n\r\nBody  with \t space \r\n\r\n\r\n"
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys=keys_address):
        await submit(store, submitted(content))
        await wait_queued(store)
        sent = peer.mails[0].content
        assert sent == b"".join(FIELDS) + content
        assert any(f"SIZE={len(sent)}" in command for command in peer.commands)
    (asked,) = keys.asked
    assert asked.domain == "example.org"
    assert asked.header_block == b"From: me@example.org\r\nSubject: x\r\n"
    body = content.partition(b"\r\n\r\n")[2]
    assert asked.body_hash == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


async def test_bare_line_ends_are_mended_before_signing(
    store: JetStream, keys: ScriptedKeys, keys_address: str
) -> None:
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys=keys_address):
        await submit(store, submitted(b"From: me@example.org\nX: y\r\n\r\na\nb\rc\r\n"))
        await wait_queued(store)
        sent = peer.mails[0].content.removeprefix(b"".join(FIELDS))
    (asked,) = keys.asked
    header, _, body = sent.partition(b"\r\n\r\n")
    assert asked.header_block == header + b"\r\n"
    assert asked.body_hash == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.FAILED_PRECONDITION,  # the domain has a key and none that can sign
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INTERNAL,
    ],
)
async def test_mail_waits_for_its_signature_and_no_attempt_is_counted(
    store: JetStream, keys: ScriptedKeys, keys_address: str, code: grpc.StatusCode
) -> None:
    keys.code = code
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys=keys_address):
        await submit(store, submitted())
        (waiting,) = await wait_queued(store, State.DEFERRED)
        assert waiting.attempts == 0
        assert code.name in waiting.wait_reason
        assert not peer.connections


async def test_without_keys_at_all_mail_waits(store: JetStream) -> None:
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys="127.0.0.1:1"):
        await submit(store, submitted())
        (waiting,) = await wait_queued(store, State.DEFERRED, seconds=20)
        assert waiting.attempts == 0
        assert not peer.connections


@pytest.mark.parametrize(
    ("record", "fields", "code", "is_asked"),
    [
        (submitted(), (), None, True),  # a domain that never had a key
        (submitted(), FIELDS, grpc.StatusCode.INVALID_ARGUMENT, True),  # nobody could sign this
        (submitted(authenticated_account=""), FIELDS, None, False),  # forwarded from outside
        (submitted(b"From: ceo@victim.test\r\n\r\nx\r\n"), FIELDS, None, False),
        (submitted(b"From: me@example.org, b@victim.test\r\n\r\nx\r\n"), FIELDS, None, False),
        (submitted(b"From: a@example.org\r\nFrom: b@x.test\r\n\r\n"), FIELDS, None, False),
        (submitted(b"Subject: no author\r\n\r\nx\r\n"), FIELDS, None, False),
    ],
    ids=["no key", "refused", "outside", "another's name", "two domains", "two From", "no From"],
)
async def test_what_is_sent_unsigned(
    store: JetStream,
    keys: ScriptedKeys,
    keys_address: str,
    record: QueuedMessage,
    fields: tuple[bytes, ...],
    code: grpc.StatusCode | None,
    is_asked: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys.fields, keys.code = fields, code
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys=keys_address):
        await submit(store, record)
        await wait_queued(store)
        assert peer.mails[0].content == record.inline_content
    assert bool(keys.asked) is is_asked
    assert ("sent unsigned" in caplog.messages) is (code is not None)


async def test_our_own_notifications_are_signed(
    store: JetStream, keys: ScriptedKeys, keys_address: str
) -> None:
    record = mail(RECIPIENT, sender="", client_address="")
    async with SmtpPeer() as peer, Delivery(store, signing(peer), keys=keys_address):
        await submit(store, record)
        await wait_queued(store)
        assert peer.mails[0].content.startswith(FIELDS[0])


async def test_nothing_is_signed_when_it_is_off(
    store: JetStream, keys: ScriptedKeys, keys_address: str
) -> None:
    async with SmtpPeer() as peer:
        async with Delivery(store, signing(peer, enabled=False), keys=keys_address):
            await submit(store, submitted())
            await wait_queued(store)
        assert peer.mails[0].content == CONTENT
    assert not keys.asked
