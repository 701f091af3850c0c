"""What SignMessage signs, and what it refuses to put anybody's name under."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from prometheus_client import REGISTRY

from services.common.rpc.errors import RpcFailure
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.private_key import generate
from services.keys.sign_message import MessageSigner
from services.keys.state import KeyState
from services.keys.store import Broken, Complete, Entry

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_HASH = bytes(32)
_HEADER = b"From: You <you@a.test>\r\nSubject: hello\r\n"


def _entry(key_type: KeyType = KeyType.ED25519, *, bits: int = 256) -> Entry:
    private = generate(key_type, bits=bits)
    key = Key(
        domain="a.test",
        selector="s1",
        key_type=key_type,
        bits=bits,
        public=private.public,
        created=_NOW,
        state=KeyState.ACTIVE,
    )
    return Entry("s1", key, private, "1")


@pytest.fixture
def keyring() -> Keyring:
    keyring = Keyring()
    keyring.take(_entry())
    keyring.take(Complete(frozenset({"s1"})))
    return keyring


@pytest.fixture
def signer(keyring: Keyring) -> MessageSigner:
    return MessageSigner(keyring, lambda: _NOW)


@pytest.mark.parametrize("domain", ["a.test", "A.Test"])
async def test_a_mail_of_the_domain_is_signed_at_the_time_given(
    signer: MessageSigner, domain: str
) -> None:
    [field] = await signer.sign(domain, _HEADER, _HASH)
    assert b"d=a.test;" in field.raw
    assert f"t={int(_NOW.timestamp())};".encode() in field.raw


@pytest.mark.parametrize("days", [0, 7])
async def test_signatures_expire_if_that_is_wished(keyring: Keyring, days: int) -> None:
    signer = MessageSigner(keyring, lambda: _NOW, lambda: timedelta(days=days))
    [field] = await signer.sign("a.test", _HEADER, _HASH)
    expiry = f"x={int(_NOW.timestamp()) + days * 86400};".encode()
    assert (expiry in field.raw) is bool(days)
    assert (b"x=" in field.raw.partition(b"h=")[0]) is bool(days)


async def test_a_large_key_signs_too() -> None:
    keyring = Keyring()
    keyring.take(_entry(KeyType.RSA, bits=2056))
    keyring.take(Complete(frozenset({"s1"})))
    signer = MessageSigner(keyring, lambda: _NOW)
    [field] = await signer.sign("a.test", _HEADER, _HASH)
    assert field.algorithm == "rsa-sha256"
    await signer.close()


async def test_a_domain_without_keys_is_not_signed(signer: MessageSigner) -> None:
    assert await signer.sign("other.test", b"From: a@other.test\r\n", _HASH) == ()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"Subject: x\r\n", "INVALID_FROM"),
        (b"From: \r\n", "INVALID_FROM"),
        (b"From: you@a.test\r\nFrom: you@a.test\r\n", "INVALID_FROM"),
        (b"From: you@a.test\r\nX-Y: z\r\nfrom : boss@b.test\r\n", "INVALID_FROM"),
        (b"From: you@a.test <boss@b.test>\r\n", "INVALID_FROM"),
        (b"From: you\r\n", "INVALID_FROM"),
        (b"From: you@b.test\r\n", "FROM_NOT_ALIGNED"),
        (b"From: you@sub.a.test\r\n", "FROM_NOT_ALIGNED"),
        (b"From: you@test\r\n", "FROM_NOT_ALIGNED"),
        (b"From: you@a.test.evil.test\r\n", "FROM_NOT_ALIGNED"),
        (b"From: you@a.test, boss@b.test\r\n", "FROM_NOT_ALIGNED"),
        (b"From: =?utf-8?q?you=40a.test?= <boss@b.test>\r\n", "FROM_NOT_ALIGNED"),
        (b"", "INVALID_HEADER"),
        (b"From: you@a.test", "INVALID_HEADER"),
        (b"From: you@a.test\r\n\r\n", "INVALID_HEADER"),
        (b"From: you@a.test\r\n\r\nFrom: x@b.test\r\n", "INVALID_HEADER"),
        (b"From: you@a.test\n", "INVALID_HEADER"),
        (b"From: you@a.test\r\nSubject: a\rb\r\n", "INVALID_HEADER"),
        (b"From: you@a.test\r\nSubject: a\nb\r\n", "INVALID_HEADER"),
        (b"From: you@a.test\r\nSubject: a\0b\r\n", "INVALID_HEADER"),
        (b"From: you@a.test\r\n" + b"X: y\r\n" * 3000, "HEADER_TOO_BIG"),
        (b"From: you@a.test\r\nX: " + b"y" * 600_000 + b"\r\n", "HEADER_TOO_BIG"),
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(
    signer: MessageSigner, header: bytes, reason: str
) -> None:
    with pytest.raises(RpcFailure) as caught:
        await signer.sign("a.test", header, _HASH)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("domain", "body_hash", "reason"),
    [
        ("", _HASH, "INVALID_DOMAIN"),
        ("a..test", _HASH, "INVALID_DOMAIN"),
        ("a.test\r\nX: y", _HASH, "INVALID_DOMAIN"),
        ("a.test", b"", "INVALID_BODY_HASH"),
        ("a.test", bytes(20), "INVALID_BODY_HASH"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    signer: MessageSigner, domain: str, body_hash: bytes, reason: str
) -> None:
    with pytest.raises(RpcFailure) as caught:
        await signer.sign(domain, _HEADER, body_hash)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_nothing_is_called_unsigned_before_the_keys_were_read() -> None:
    signer = MessageSigner(Keyring(), lambda: _NOW)
    with pytest.raises(RpcFailure) as caught:
        await signer.sign("a.test", _HEADER, _HASH)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.expect_warnings("stored key cannot be read")
async def test_a_domain_whose_key_is_damaged_waits() -> None:
    keyring = Keyring()
    keyring.take(Broken("s1", "it is not JSON", "a.test", "s1"))
    keyring.take(Complete(frozenset({"s1"})))
    with pytest.raises(RpcFailure, match="not JSON") as caught:
        await MessageSigner(keyring, lambda: _NOW).sign("a.test", _HEADER, _HASH)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.reason == "NO_USABLE_KEY"


async def test_signatures_are_counted(signer: MessageSigner) -> None:
    def count(algorithm: str, result: str) -> float:
        labels = {"algorithm": algorithm, "result": result}
        return REGISTRY.get_sample_value("gatepost_keys_signatures_total", labels) or 0

    rows = [("ed25519-sha256", "signed"), ("none", "no_key"), ("none", "refused")]
    before = [count(*row) for row in rows]
    await signer.sign("a.test", _HEADER, _HASH)
    await signer.sign("other.test", _HEADER, _HASH)
    with pytest.raises(RpcFailure):
        await signer.sign("a.test", b"From: x@b.test\r\n", _HASH)
    assert [count(*row) for row in rows] == [value + 1 for value in before]
