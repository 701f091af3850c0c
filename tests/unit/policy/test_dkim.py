"""DKIM: RFC 8463's example, and what a signature or a key can get wrong (RFC 6376, RFC 8301)."""

import time
from collections.abc import Callable

import pytest

from services.policy.checks import dkim_invalid, dkim_missing
from services.policy.checks.check import Finding, Standing
from services.policy.dkim.verification import SignatureResult, verify_signatures
from services.policy.subject import BodyDigest, Mail
from tests.support.dkim_signer import (
    KEY_NAME,
    PrivateKey,
    ed25519_key,
    record,
    rsa_key,
    sign,
)
from tests.support.resolver import FakeResolver
from tests.support.subjects import mail, means

NOW = 1_700_000_000

MESSAGE = """\
From: Ann <ann@example.org>
To: Bob <bob@example.test>
Subject:  two  words
 and a fold

Hello  there,\t
\tdear Bob.\x20

"""

# RFC 8463 Appendix A
FOOTBALL = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
"""
FOOTBALL_KEYS = {
    ("brisbane._domainkey.football.example.com", "TXT"): [
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ],
    ("test._domainkey.football.example.com", "TXT"): [
        (
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08"
            "a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM"
            "KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
        )
    ],
}


async def verified(
    text: str, *records: str, temporary: bool = False
) -> tuple[SignatureResult, ...]:
    resolver = FakeResolver(
        {(KEY_NAME, "TXT"): list(records)} if records else {},
        temporary={KEY_NAME} if temporary else (),
    )
    return await verify_signatures(mail(text), resolver, now=NOW)


async def only(text: str, *records: str) -> SignatureResult:
    [result] = await verified(text, *records)
    return result


async def test_the_example_of_rfc_8463() -> None:
    results = await verify_signatures(mail(FOOTBALL), FakeResolver(FOOTBALL_KEYS), now=NOW)
    assert [(r.result, r.label.algorithm, r.bits) for r in results] == [
        ("pass", "ed25519-sha256", 256),
        ("pass", "rsa-sha256", 1024),
    ]
    assert results[1].label.signature == "F45dVWDf"


@pytest.mark.parametrize("key", [rsa_key, ed25519_key], ids=["rsa", "ed25519"])
@pytest.mark.parametrize(
    "canonicalization", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"]
)
async def test_canonicalizations(key: Callable[[], PrivateKey], canonicalization: str) -> None:
    text = sign(MESSAGE, key(), canonicalization=canonicalization)
    assert (await only(text, record(key()))).result == "pass"


@pytest.mark.parametrize(
    ("canonicalization", "old", "new", "result"),
    [
        ("relaxed/relaxed", "two  words", "two words", "pass"),
        ("relaxed/relaxed", "Subject:  two", "SUBJECT : two", "pass"),
        ("relaxed/relaxed", "dear Bob. ", "dear Bob.", "pass"),
        ("relaxed/relaxed", "Hello  there", "Hello \tthere", "pass"),
        ("relaxed/relaxed", "two  words", "two  swords", "fail"),
        ("relaxed/relaxed", "Hello", "Hallo", "fail"),
        ("simple/simple", "two  words", "two words", "fail"),
        ("simple/simple", "dear Bob. ", "dear Bob.", "fail"),
        ("simple/simple", "Bob. \n\n", "Bob. \n\n\n\n", "pass"),
        ("relaxed/relaxed", "Subject: ", "X-New: 1\nSubject: ", "pass"),
        ("relaxed/relaxed", "From: ", "From: eve@example.net\nFrom: ", "policy"),
    ],
)
async def test_changes_on_the_way(canonicalization: str, old: str, new: str, result: str) -> None:
    text = sign(MESSAGE, rsa_key(), canonicalization=canonicalization)
    assert old in text
    assert (await only(text.replace(old, new), record(rsa_key()))).result == result


@pytest.mark.parametrize("body", ["", "\n", "\n\n\n", "a", " \n \n", "a\n\n\n"])
@pytest.mark.parametrize("canonicalization", ["simple/simple", "relaxed/relaxed"])
async def test_bodies_at_the_edge(body: str, canonicalization: str) -> None:
    message = "From: ann@example.org\n\n" + body
    text = sign(message, rsa_key(), canonicalization=canonicalization)
    assert (await only(text, record(rsa_key()))).result == "pass"


@pytest.mark.parametrize(
    ("tags", "result"),
    [
        ({"v": "2"}, "neutral"),
        ({"v": ""}, "neutral"),
        ({"a": "rsa-sha1"}, "policy"),
        ({"a": "rsa-md5"}, "neutral"),
        ({"a": ""}, "neutral"),
        ({"d": ""}, "neutral"),
        ({"d": "org"}, "neutral"),
        ({"d": "not a domain"}, "neutral"),
        ({"s": ""}, "neutral"),
        ({"s": "a..b"}, "neutral"),
        ({"h": ""}, "neutral"),
        ({"h": "to:subject"}, "permerror"),
        ({"h": "from::to"}, "neutral"),
        ({"bh": "!"}, "neutral"),
        ({"bh": "AAAA"}, "fail"),
        ({"bh": ""}, "neutral"),
        ({"c": "relaxed/other"}, "neutral"),
        ({"i": "@other.example"}, "permerror"),
        ({"i": "ann@xexample.org"}, "permerror"),
        ({"q": "dns/other"}, "neutral"),
        ({"t": "soon"}, "neutral"),
        ({"x": str(NOW - 1)}, "permerror"),
        ({"t": "200", "x": "100"}, "neutral"),
        ({"x": "never"}, "neutral"),
        ({"l": "-1"}, "neutral"),
        ({"l": "all"}, "neutral"),
        # Well as they are
        ({"i": "ann@sub.example.org"}, "pass"),
        ({"i": "@EXAMPLE.ORG"}, "pass"),
        ({"q": "dns/other:dns/txt"}, "pass"),
        ({"t": str(NOW), "x": str(NOW + 100)}, "pass"),
        ({"x": "9" * 60}, "pass"),
        ({"z": "From:x|To:y"}, "pass"),
        ({"unknown": "tag"}, "pass"),
        ({"l": "9" * 70}, "pass"),
        ({"d": "EXAMPLE.org"}, "pass"),
    ],
    ids=lambda value: (
        "".join(f"{k}={v}"[:20] for k, v in value.items()) if isinstance(value, dict) else value
    ),
)
async def test_tags(tags: dict[str, str], result: str) -> None:
    assert (await only(sign(MESSAGE, rsa_key(), **tags), record(rsa_key()))).result == result


@pytest.mark.parametrize(
    "value",
    ["", ";", "v=1; v=1", "no tags", "v=1; =x", "v=1;" * 200, "b" * 100_000, "\xff"],
    ids=["empty", "semicolon", "twice", "words", "no name", "many", "long", "latin"],
)
async def test_fields_that_make_no_sense(value: str) -> None:
    text = f"DKIM-Signature: {value}\n{MESSAGE}".encode("latin-1")
    [result] = await verify_signatures(mail(text), FakeResolver(), now=NOW)
    assert result.result == "neutral"


async def test_a_length_must_cover_the_body() -> None:
    text = sign(MESSAGE, rsa_key(), length=5)
    assert (await only(text, record(rsa_key()))).result == "policy"
    whole = len("Hello there,\r\n dear Bob.\r\n")
    text = sign(MESSAGE, rsa_key(), length=whole)
    assert (await only(text, record(rsa_key()))).result == "pass"
    assert (await only(text.rstrip("\n") + "\nbuy!\n", record(rsa_key()))).result == "policy"


async def test_a_key_that_cannot_be_looked_up_is_temporary() -> None:
    [result] = await verified(sign(MESSAGE, rsa_key()), temporary=True)
    assert result.result == "temperror"


async def test_several_signatures_are_judged_each() -> None:
    text = sign(sign(MESSAGE, rsa_key()), ed25519_key(), s="other")
    results = await verified(text, record(rsa_key()))
    assert [result.result for result in results] == ["permerror", "pass"]


async def test_of_hundreds_of_signatures_ten_are_looked_at() -> None:
    text = f"DKIM-Signature: v=1; d=example.org; s=sel\n{MESSAGE}"
    text = "".join([f"DKIM-Signature: v=1; d=x{n}.example; s=s\n" for n in range(499)]) + text
    started = time.process_time()
    assert len(await verified(text)) == 10
    assert time.process_time() - started < 0.2


async def test_a_list_of_a_hundred_thousand_names_is_refused_at_once() -> None:
    started = time.process_time()
    result = await only(sign(MESSAGE, rsa_key(), h="from:" + "x:" * 30_000 + "to"))
    assert result.result == "neutral"
    assert time.process_time() - started < 0.2


async def test_digests_are_taken_from_the_request() -> None:
    text = sign(MESSAGE, rsa_key())
    full = mail(text)
    await full.hash_body([("relaxed", None)])
    digest = full.body_digest("relaxed", None)
    assert isinstance(digest, BodyDigest)
    resolver = FakeResolver({(KEY_NAME, "TXT"): [record(rsa_key())]})
    sent = Mail(full.envelope, full.header, (digest,))
    [result] = await verify_signatures(sent, resolver, now=NOW)
    assert result.result == "pass"
    [result] = await verify_signatures(Mail(full.envelope, full.header), resolver, now=NOW)
    assert (result.result, result.reason) == (
        "neutral",
        "the body was not hashed for this signature",
    )


async def judge(text: str, *records: str, temporary: bool = False) -> tuple[Finding, Finding]:
    judged = mail(text)
    judged.signatures = await verified(text, *records, temporary=temporary)
    use = means(FakeResolver())
    return await dkim_invalid.find(judged, use), await dkim_missing.find(judged, use)


@pytest.mark.parametrize(
    ("text", "records", "invalid", "missing"),
    [
        (MESSAGE, [], ("none", Standing.CLEAR), ("none", Standing.OBJECTS)),
        (
            sign(MESSAGE, rsa_key()),
            [record(rsa_key())],
            ("pass", Standing.CLEAR),
            ("pass", Standing.CLEAR),
        ),
        (
            sign(MESSAGE, rsa_key()).replace("Hello", "Hallo"),
            [record(rsa_key())],
            ("fail", Standing.OBJECTS),
            ("pass", Standing.CLEAR),
        ),
        (
            sign(MESSAGE, rsa_key()),
            [],
            ("permerror", Standing.OBJECTS),
            ("pass", Standing.CLEAR),
        ),
        # A key under test: RFC 6376 §3.6.1
        (
            sign(MESSAGE, rsa_key()).replace("Hello", "Hallo"),
            [record(rsa_key(), t="y")],
            ("none", Standing.CLEAR),
            ("none", Standing.OBJECTS),
        ),
        (
            sign(sign(MESSAGE, rsa_key()), ed25519_key(), s="gone"),
            [record(rsa_key())],
            ("pass", Standing.CLEAR),
            ("pass", Standing.CLEAR),
        ),
    ],
    ids=["unsigned", "valid", "changed", "no key", "test key", "one of two"],
)
async def test_checks(
    text: str,
    records: list[str],
    invalid: tuple[str, Standing],
    missing: tuple[str, Standing],
) -> None:
    found = await judge(text, *records)
    assert [(finding.result, finding.standing) for finding in found] == [invalid, missing]


async def test_a_failure_of_dns_is_no_invalid_signature() -> None:
    invalid, missing = await judge(sign(MESSAGE, rsa_key()), temporary=True)
    assert (invalid.result, invalid.standing) == ("temperror", Standing.UNKNOWN)
    assert missing.standing is Standing.CLEAR


async def test_the_evidence_names_signature_record_and_size() -> None:
    invalid, _ = await judge(sign(MESSAGE, rsa_key()), record(rsa_key()))
    assert invalid.evidence == (
        ("dkim.signature", "d=example.org s=sel a=rsa-sha256: pass"),
        ("dns.txt", f"{KEY_NAME}: {record(rsa_key())}"),
        ("dkim.key_bits", "1024"),
    )
