"""The TXT record: what is proposed, and which published ones will do."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import dns.rdata
import pytest

from services.keys import key_record
from services.keys.key import Key, KeyType
from services.keys.private_key import generate

_RSA_4096_SPKI = "MIIC" + "A" * 732  # as long as a real one, 552 octets
_RSA = Key(
    domain="example.test",
    selector="s1",
    key_type=KeyType.RSA,
    bits=4096,
    public=_RSA_4096_SPKI,
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
_P = _RSA.public.encode()


def test_the_value_is_what_verifiers_look_for() -> None:
    private = generate(KeyType.ED25519, bits=256)
    key = Key(
        domain="example.test",
        selector="ed1",
        key_type=KeyType.ED25519,
        bits=256,
        public=private.public,
        created=_RSA.created,
    )
    assert key_record.value(key) == f"v=DKIM1; k=ed25519; p={private.public}"
    assert key.record_name == "ed1._domainkey.example.test"
    assert key_record.zone_file(key.record_name, key_record.value(key)) == (
        f'ed1._domainkey.example.test. IN TXT "v=DKIM1; k=ed25519; p={private.public}"'
    )


def test_a_long_value_is_split_in_the_zone_file_and_joined_by_the_dns() -> None:
    value = key_record.value(_RSA)
    text = key_record.zone_file(_RSA.record_name, value)
    strings = re.findall(r'"([^"]*)"', text)
    assert len(strings) == 3
    assert all(len(string) <= 255 for string in strings)
    assert text.startswith("s1._domainkey.example.test. IN TXT (")
    # As a name server reads it.
    rdata = dns.rdata.from_text("IN", "TXT", text.partition(" TXT ")[2])
    assert b"".join(rdata.strings).decode() == value  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ['say "hi"', "back\\slash"])
def test_quotes_survive_the_zone_file(value: str) -> None:
    text = key_record.zone_file("a.test", value)
    rdata = dns.rdata.from_text("IN", "TXT", text.partition(" TXT ")[2])
    assert b"".join(rdata.strings).decode() == value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "record",
    [
        b"v=DKIM1; k=rsa; p=" + _P,
        b"v=DKIM1;k=rsa;p=" + _P + b";",
        b"p=" + _P,
        b"k=rsa; p=" + _P,
        b"v=DKIM1; p=" + _P[:100] + b" " + _P[100:],
        b"v=DKIM1; h=sha1:sha256; s=email; t=s; n=note; x=unknown; p=" + _P,
        b"v=DKIM1; s=*; p=" + _P,
    ],
)
def test_records_that_will_do(record: bytes) -> None:
    assert key_record.objection(_RSA, [record]) == ""


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no TXT record"),
        ([b"v=DKIM1; p=" + _P, b"v=DKIM1; p=" + _P], "2 TXT records"),
        ([b"v=spf1 -all"], "v= is not DKIM1"),
        ([b"hello"], "not a DKIM key record"),
        ([b""], "not a DKIM key record"),
        ([b"\xff\xfe"], "not a DKIM key record"),
        ([b"v=DKIM1; p=AA; p=" + _P], "not a DKIM key record"),
        ([b"v=DKIM2; p=" + _P], "v= is not DKIM1"),
        ([b"k=rsa; v=DKIM1; p=" + _P], "v= is not DKIM1 at the beginning"),
        ([b"v=DKIM1; k=rsa"], "no p="),
        ([b"v=DKIM1; k=rsa; p="], "revokes"),
        # The first of the strings, as broken panels publish it.
        ([b"v=DKIM1; k=rsa; p=" + _P[:237]], "cut off after 237 of 736"),
        ([b"v=DKIM1; k=rsa; p=" + b"B" * 736], "another key"),
        (
            [b"v=DKIM1; k=rsa; p=" + _P[:237] + b'" "' + _P[237:]],
            "another key, or this one damaged",
        ),
        ([b"v=DKIM1; k=ed25519; p=" + _P], "k= is not rsa"),
        ([b"v=DKIM1; h=sha1; p=" + _P], "h= does not allow sha256"),
        ([b"v=DKIM1; s=tlsrpt; p=" + _P], "s= does not allow email"),
    ],
)
def test_records_that_verifiers_would_not_take(records: list[bytes], why: str) -> None:
    objection = key_record.objection(_RSA, records)
    assert why in objection
    assert objection.isprintable()
    for record in records[:1]:
        # What is there is shown, so that a person sees the typing error.
        assert record.decode("ascii", "backslashreplace")[:200] in objection


@pytest.mark.parametrize(
    "record", [b"v=DKIM1; p=x%bx", b"v=DKIM1; p=%bx", b"%b", b"v%b", b"%b=", b"v=%b"]
)
def test_much_white_space_takes_little_time(record: bytes) -> None:
    begun = time.process_time()
    assert key_record.objection(_RSA, [record.replace(b"%b", b" " * 60_000)])
    assert time.process_time() - begun < 2.0  # quadratic, it takes ten
