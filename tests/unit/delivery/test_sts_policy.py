"""MTA-STS records and policies: what is one, what is none, which names they permit."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.tls.sts_policy import (
    MAX_AGE,
    MIN_AGE,
    InvalidPolicy,
    Mode,
    StsPolicy,
    parse_policy,
    record_id,
)

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 604800\r\n"
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ; id=1 ; more=x.y/z"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1;"], "1"),
        ([b"v=STSv1; id=" + b"a" * 32], "a" * 32),
        ([], None),
        ([b"v=spf1 -all"], None),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=1;"], None),
        ([b"v=STSv1; id=1;", b"v=STSv1;"], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv2; id=1;"], None),
        ([b"V=STSv1; id=1;"], None),
        ([b"v=stsv1; id=1;"], None),
        ([b" v=STSv1; id=1;"], None),
        ([b"id=1; v=STSv1;"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=1; id=2;"], None),
        ([b"v=STSv1; id=a-b;"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv1; id=1;;"], None),
        ([b"v=STSv1; id=1; nonsense"], None),
        ([b"v=STSv1; id=1; x=\xff"], None),
        ([b"v=STSv1; id=1\n;"], None),
    ],
    ids=repr,
)
def test_a_record_announces_a_policy_or_it_does_not(
    texts: list[bytes], expected: str | None
) -> None:
    assert record_id(texts) == expected


def test_a_policy_is_read() -> None:
    assert parse_policy(GOOD) == StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), WEEK)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"\r\n", b"\n", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), WEEK)),
        (b": ", b":\t ", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), WEEK)),
        (b"enforce", b"testing  ", StsPolicy(Mode.TESTING, ("mx.a.test", "*.b.test"), WEEK)),
        (b"mx.a.test", b"MX.A.test", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), WEEK)),
        (b"604800\r\n", b"604800", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), WEEK)),
        (b"604800", b"9999999999", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), MAX_AGE)),
        (b"604800", b"0", StsPolicy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), MIN_AGE)),
        # Of what may stand once, the first counts; what nobody knows is passed over.
        (b"mx: mx.a", b"mode: none\r\nmx: mx.a", parse_policy(GOOD)),
        (b"mx: mx.a", "x.y-z: grün\r\nmx: mx.a".encode(), parse_policy(GOOD)),
        (b"mx: mx.a", b"\r\nmx: mx.a", parse_policy(GOOD)),
    ],
    ids=repr,
)
def test_a_policy_in_other_words(old: bytes, new: bytes, expected: StsPolicy) -> None:
    assert parse_policy(GOOD.replace(old, new)) == expected


def test_a_policy_that_asks_for_nothing_names_no_exchange() -> None:
    policy = parse_policy(b"version: STSv1\nmode: none\nmax_age: 86400\n")
    assert policy == StsPolicy(Mode.NONE, (), timedelta(days=1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (GOOD, b"", "version"),
        (GOOD, b"<html><p>404: nothing here</p></html>", "line 1"),
        (b"version: STSv1\r\n", b"", "version"),
        (b"STSv1", b"STSv2", "version"),
        (b"STSv1", b"stsv1", "version"),
        (b"version:", b"Version:", "version"),
        (b"version: STSv1", b"version STSv1", "line 1"),
        (b"mode: enforce\r\n", b"", "mode"),
        (b"enforce", b"Enforce", "mode"),
        (b"enforce", b"strict", "mode"),
        (b"mx: mx.a.test\r\nmx: *.b.test\r\n", b"", "no mail exchange"),
        (b"mx.a.test", b"", "line 3"),
        (b"mx.a.test", b"*", "line 3"),
        (b"mx.a.test", b"*.", "line 3"),
        (b"mx.a.test", b"a*.test", "line 3"),
        (b"mx.a.test", b"a.*.test", "line 3"),
        (b"mx.a.test", b".a.test", "line 3"),
        (b"mx.a.test", b"mx.a.test.", "line 3"),
        (b"mx.a.test", b"192.0.2.1", "line 3"),
        (b"mx.a.test", b"mx.a.test, mx.b.test", "line 3"),
        (b"mx.a.test", "mx.grün.test".encode(), "line 3"),
        (b"max_age: 604800\r\n", b"", "max_age"),
        (b"604800", b"-1", "max_age"),
        (b"604800", b"1e6", "max_age"),
        (b"604800", b"12345678901", "max_age"),
        (b"604800", "٦٠٤".encode(), "max_age"),
        (b"\r\n", b"\r", "version"),
        (b"mx.a", b"mx\xff.a", "UTF-8"),
        (b"mode", b"mo de", "line 2"),
    ],
    ids=repr,
)
def test_what_is_no_policy_is_refused(old: bytes, new: bytes, reason: str) -> None:
    with pytest.raises(InvalidPolicy, match=reason):
        parse_policy(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("host", "permitted"),
    [
        ("mx.a.test", True),
        ("x.b.test", True),
        ("a.test", False),
        ("x.mx.a.test", False),
        ("b.test", False),
        ("x.y.b.test", False),
        ("xb.test", False),
        ("mx.a.test.evil.test", False),
    ],
)
def test_a_star_stands_for_one_label(host: str, permitted: bool) -> None:
    assert parse_policy(GOOD).permits(host) is permitted


@given(st.binary(max_size=300) | st.lists(st.sampled_from(GOOD.split(b"\r\n"))).map(b"\n".join))
def test_whatever_comes_is_a_policy_or_none(octets: bytes) -> None:
    with contextlib.suppress(InvalidPolicy):
        policy = parse_policy(octets)
        assert policy.patterns or policy.mode is Mode.NONE
        assert MIN_AGE <= policy.max_age <= MAX_AGE
