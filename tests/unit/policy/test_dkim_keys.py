"""DKIM keys: what a record may say (RFC 6376 §3.6.1), and what a stranger may put into one."""

import base64
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.policy.dkim.verification import SignatureResult, verify_signatures
from tests.support.dkim_signer import KEY_NAME, ed25519_key, record, rsa_key, sign
from tests.support.resolver import FakeResolver
from tests.support.soon import soon
from tests.support.subjects import mail

NOW = 1_700_000_000

MESSAGE = "From: Ann <ann@example.org>\nSubject: hello\n\nHello.\n"


async def only(text: str, *records: str) -> SignatureResult:
    resolver = FakeResolver({(KEY_NAME, "TXT"): list(records)} if records else {})
    [result] = await verify_signatures(mail(text), resolver, now=NOW)
    return result


@pytest.mark.parametrize(
    ("records", "result"),
    [
        ([], "permerror"),
        ([record(rsa_key(), p="")], "permerror"),
        ([record(rsa_key(), p="!!!")], "permerror"),
        ([record(rsa_key(), p="AAAA")], "permerror"),
        ([record(rsa_key(), v="DKIM2")], "permerror"),
        (["k=rsa; v=DKIM1; p=AAAA"], "permerror"),
        ([record(rsa_key(), k="other")], "permerror"),
        ([record(rsa_key(), h="sha1")], "permerror"),
        ([record(rsa_key(), s="tlsrpt")], "permerror"),
        ([record(ed25519_key())], "permerror"),
        ([record(rsa_key(), k="ed25519")], "permerror"),
        (["not a key"], "permerror"),
        ([record(rsa_key(2048))], "fail"),
        ([record(rsa_key(), h="sha1:sha256")], "pass"),
        ([record(rsa_key(), s="other:email")], "pass"),
        ([record(rsa_key(), n="a note", x="unknown")], "pass"),
        ([record(rsa_key()).removeprefix("v=DKIM1; ")], "pass"),
        (["not a key", record(rsa_key())], "pass"),
    ],
)
async def test_key_records(records: list[str], result: str) -> None:
    assert (await only(sign(MESSAGE, rsa_key()), *records)).result == result


async def test_a_key_of_the_bare_form_of_rfc_6376() -> None:
    # p= of RFC 6376 §3.6.1 is an RSAPublicKey; everybody publishes a SubjectPublicKeyInfo.
    octets = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    bare = f"p={base64.b64encode(octets).decode()}"
    assert (await only(sign(MESSAGE, rsa_key()), bare)).result == "pass"


async def test_a_key_for_the_domain_itself_is_not_for_subdomains() -> None:
    text = sign(MESSAGE, rsa_key(), i="@sub.example.org")
    assert (await only(text, record(rsa_key(), t="s"))).result == "permerror"
    assert (await only(text, record(rsa_key(), t="y"))).result == "pass"


@pytest.mark.timed
@pytest.mark.parametrize(
    "field",
    ["modulus", "exponent", "record"],
)
async def test_a_hostile_key_costs_nothing(field: str) -> None:
    modulus = (1 << 16_000) + 1 if field == "modulus" else (1 << 2047) + 1
    exponent = (1 << 2000) + 1 if field == "exponent" else 65537
    text = record_of_numbers(modulus, exponent)
    if field == "record":
        text += "; n=" + "x" * 10_000
    signed = sign(MESSAGE, rsa_key())

    async def attempt() -> float:
        started = time.process_time()
        result = await only(signed, text)
        assert result.result in {"policy", "permerror"}
        return time.process_time() - started

    await soon(attempt, seconds=0.2)


def record_of_numbers(modulus: int, exponent: int) -> str:
    """A key record of any two numbers, in DER written by hand."""

    def number(value: int) -> bytes:
        octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
        return b"\x02" + length(len(octets)) + octets

    def length(size: int) -> bytes:
        if size < 0x80:
            return bytes((size,))
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes((0x80 | len(octets),)) + octets

    content = number(modulus) + number(exponent)
    return f"v=DKIM1; p={base64.b64encode(b'0' + length(len(content)) + content).decode()}"


async def test_keys_under_1024_bits_do_not_count() -> None:
    # Too small for cryptography to make; written by hand.
    result = await only(sign(MESSAGE, rsa_key()), record_of_numbers((1 << 767) + 9, 65537))
    assert result.result in {"policy", "permerror"}
