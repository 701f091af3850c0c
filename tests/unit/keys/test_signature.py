"""DKIM-Signature fields, verified by dkimpy, which shares no arithmetic with us."""

from __future__ import annotations

import re
import time
from functools import cache

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.mail.body_hash import BodyHash
from services.common.mail.message import parse_header, split_message
from services.keys.canonical_header import relaxed
from services.keys.key import KeyType
from services.keys.private_key import PrivateKey, generate
from services.keys.signature import SignatureField, Signer, sign
from services.keys.signed_fields import OVERSIGNED, signed_fields

_MESSAGE = (
    b"Received: from a by b; Mon, 23 Nov 2026 03:00:00 +0000\r\n"
    b"From: You <you@example.test>\r\n"
    b"To: a@b.test,\r\n\tc@d.test\r\n"
    b"Subject: two  spaces\t and a tab  \r\n"
    b"Date: Mon, 23 Nov 2026 03:00:00 +0000\r\n"
    b"Message-ID: <1@example.test>\r\n"
    b"List-Unsubscribe: <https://example.test/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"X-Other: kept out\r\n"
    b"\r\n"
    b"Hello,  \r\nworld\t\tand  all\r\n\r\n\r\n"
)


@cache
def _private(key_type: KeyType) -> PrivateKey:
    return generate(key_type, bits=1024)


def _signer(key_type: KeyType, *, domain: str = "example.test") -> Signer:
    return Signer(domain, f"{key_type}1", _private(key_type))


def _sign(message: bytes, *signers: Signer, lifetime: int = 0) -> tuple[SignatureField, ...]:
    header, body = split_message(message)
    body_hash = BodyHash("relaxed")
    body_hash.update(body)
    return sign(
        signed_fields(header),
        body_hash=body_hash.digest(),
        signers=signers,
        at=int(time.time()),
        lifetime=lifetime,
    )


def _records(name: bytes | str, timeout: int = 5) -> bytes | None:
    """The DNS as the verifier asks it."""
    text = name.decode() if isinstance(name, bytes) else name
    for key_type in KeyType:
        if text.startswith(f"{key_type}1._domainkey."):
            return f"v=DKIM1; k={key_type}; p={_private(key_type).public}".encode()
    return None


def _verifies(message: bytes, *, index: int = 0) -> bool:
    try:
        verified: bool = dkim.DKIM(message).verify(idx=index, dnsfunc=_records)
    except dkim.DKIMException:
        return False
    return verified


@pytest.mark.parametrize("key_type", KeyType)
def test_another_verifier_agrees(key_type: KeyType) -> None:
    [field] = _sign(_MESSAGE, _signer(key_type))
    assert field.algorithm == f"{key_type}-sha256"
    assert _verifies(field.raw + _MESSAGE)


def test_an_rsa_and_an_ed25519_signature_stand_together() -> None:
    fields = _sign(_MESSAGE, _signer(KeyType.RSA), _signer(KeyType.ED25519))
    assert [field.algorithm for field in fields] == ["rsa-sha256", "ed25519-sha256"]
    message = b"".join(field.raw for field in fields) + _MESSAGE
    assert _verifies(message, index=0)
    assert _verifies(message, index=1)


@pytest.mark.parametrize(
    ("old", "new", "survives"),
    [
        # What a reader sees or his program acts on cannot be changed, removed or added.
        (b"Subject: two", b"Subject: three", False),
        (b"From: You <you@", b"From: Me <you@", False),
        (b"\r\nFrom:", b"\r\nFrom: boss@elsewhere.test\r\nFrom:", False),
        (b"\r\nFrom:", b"\r\nReply-To: boss@elsewhere.test\r\nFrom:", False),
        (b"\r\nFrom:", b"\r\nSubject: first\r\nFrom:", False),
        (b"\r\nFrom:", b"\r\nContent-Type: text/html\r\nFrom:", False),
        (b"\r\nFrom:", b"\r\nCc: everybody@elsewhere.test\r\nFrom:", False),
        (b"Subject: two  spaces\t and a tab  \r\n", b"", False),
        (b"One-Click", b"Two-Click", False),
        (b"world", b"World", False),
        # What forwarders do on the way is not noticed.
        (b"Received: ", b"Received: from c by d; today\r\nReceived: ", True),
        (b"\r\nFrom:", b"\r\nSender: list@lists.test\r\nFrom:", True),
        (b"\r\nFrom:", b"\r\nX-Spam: no\r\nFrom:", True),
        (b"X-Other: kept out\r\n", b"", True),
        (b"Subject: two  spaces", b"SUBJECT:   two spaces", True),
        (b"a@b.test,\r\n\tc@d.test", b"a@b.test,  c@d.test", True),
        (b"\r\n\r\n\r\n", b"\r\n", True),
    ],
)
def test_what_a_signature_covers(old: bytes, new: bytes, survives: bool) -> None:
    [field] = _sign(_MESSAGE, _signer(KeyType.ED25519))
    header, body = split_message(_MESSAGE)
    changed = (header + b"\r\n" + body).replace(old, new, 1)
    assert changed != _MESSAGE
    assert _verifies(field.raw + changed) is survives


def test_names_are_listed_once_more_than_they_are_there() -> None:
    [field] = _sign(_MESSAGE, _signer(KeyType.RSA))
    names = _tags(field)["h"].split(":")
    assert names.count("from") == 2
    assert names.count("reply-to") == 1
    assert names.count("list-unsubscribe") == 1
    assert set(OVERSIGNED) <= set(names)
    assert not {"received", "x-other", "dkim-signature", "return-path"} & set(names)


def test_every_instance_of_a_field_is_covered() -> None:
    message = _MESSAGE.replace(b"Subject:", b"Subject: a\r\nSubject: b\r\nSubject:", 1)
    [field] = _sign(message, _signer(KeyType.ED25519))
    assert _tags(field)["h"].split(":").count("subject") == 4
    assert _verifies(field.raw + message)
    assert not _verifies(field.raw + message.replace(b"Subject: a", b"Subject: x"))


@pytest.mark.parametrize("lifetime", [0, 600])
def test_times(lifetime: int) -> None:
    [field] = _sign(_MESSAGE, _signer(KeyType.RSA), lifetime=lifetime)
    tags = _tags(field)
    assert abs(int(tags["t"]) - time.time()) < 60
    assert tags.get("x") == (str(int(tags["t"]) + lifetime) if lifetime else None)
    assert _verifies(field.raw + _MESSAGE)


def test_the_field_is_a_proper_one() -> None:
    long = Signer(".".join(["d" * 63] * 3), "s" * 50, _private(KeyType.RSA))
    for field in _sign(_MESSAGE, _signer(KeyType.RSA), _signer(KeyType.ED25519), long):
        assert field.raw.endswith(b"\r\n")
        lines = field.raw[:-2].split(b"\r\n")
        assert lines[0].startswith(b"DKIM-Signature: v=1;")
        assert all(line.startswith(b"\t") and line.strip() for line in lines[1:])
        # Only a name that is longer itself makes a line longer.
        assert all(len(line) <= 78 for line in lines if b"ddd" not in line)
        assert len(parse_header(field.raw).fields) == 1
        assert _tags(field)["c"] == "relaxed/relaxed"


def _tags(field: SignatureField) -> dict[str, str]:
    value = re.sub(rb"\s+", b"", field.raw.partition(b":")[2]).decode("ascii")
    return dict(tag.split("=", 1) for tag in value.split(";") if tag)


# RFC 6376 §3.4.2, said again in the plainest way.
def _relaxed_by_the_book(name: str, value: bytes) -> bytes:
    words = [word for word in re.split(rb"[ \t]+", value.replace(b"\r\n", b"")) if word]
    text = value.replace(b"\r\n", b"").strip(b" \t")
    assert b" ".join(words).split(b" ") == re.split(rb"[ \t]+", text)
    return name.lower().encode() + b":" + b" ".join(words) + b"\r\n"


@settings(deadline=None)  # on a busy machine any example may take long
@given(
    st.lists(
        st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"B", b"\x0b", b"\x0c", b"\xff"]),
        max_size=12,
    )
)
def test_canonical_fields_are_as_the_rfc_says(parts: list[bytes]) -> None:
    value = b"".join(parts) + b"\r\n"
    assert relaxed(b"subject", value) == _relaxed_by_the_book("subject", value)


@settings(deadline=None)  # on a busy machine any example may take long
@given(st.binary(max_size=60).map(lambda b: b.translate(None, b"\r\n\0")), st.integers(0, 3))
def test_any_subject_verifies(subject: bytes, times: int) -> None:
    fields = b"".join(b"Subject:" + subject + b"\r\n" for _ in range(times))
    message = b"From: you@example.test\r\n" + fields + b"\r\nbody\r\n"
    [field] = _sign(message, _signer(KeyType.ED25519))
    # dkimpy takes two control characters for white space; see `canonical_header`.
    if not {0x0B, 0x0C} & set(subject.strip(b" \t")[:1] + subject.strip(b" \t")[-1:]):
        assert _verifies(field.raw + message)
