"""The header of an accepted mail: trace on top, forgeries gone, the rest untouched."""

from datetime import UTC, datetime

import pytest

from gatepost.policy.v1.verdict_pb2 import HeaderField
from services.common.mail.message import parse_header
from services.ingress.header_fields import rewritten, submission_fields

_TRACE = b"Received: from a by b\r\n"
_NOW = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)

# (field as it came, whether it stays)
FIELDS = [
    (b"Subject: x\r\n", True),
    (b"X-Spam-Flag: NO\r\n", False),
    (b"x-sPaM-Status: No, really\r\n", False),
    (b"X-Spam : NO\r\n", True),
    (b"X-Spam-Flag : NO\r\n", False),
    (b"X-Gatepost-Verdict: clean\r\n", False),
    (b"X-Gatepost:\r\n clean\r\n", True),
    (b"Authentication-Results: mx.example.test; spf=pass\r\n", False),
    (b"authentication-results:  MX.Example.Test 1; dkim=pass\r\n", False),
    (b"Authentication-Results:\r\n mx.example.test;\r\n spf=pass\r\n", False),
    (b"Authentication-Results: (a (nested) comment) mx.example.test; spf=pass\r\n", False),
    (b'Authentication-Results: "mx.example.test"; spf=pass\r\n', False),
    (b"Authentication-Results: mx.example.test\r\n", False),
    (b"Authentication-Results: (;) mx.example.test; spf=pass\r\n", False),
    (b"Authentication-Results: (a;b)\r\n mx.example.test 1; dmarc=pass\r\n", False),
    (b'Authentication-Results: (a (;) \\) ; ") mx.example.test; spf=pass\r\n', False),
    (b"Authentication-Results: other(;)(;)mx.example.test; spf=pass\r\n", False),
    (b"Authentication-Results: mx.exam(;)ple.test; spf=pass\r\n", False),
    (b'Authentication-Results: "mx.exam\\ple.test"; dmarc=pass\r\n', False),
    (b'Authentication-Results: "\\m\\x.Example.\\Test" 1; dmarc=pass\r\n', False),
    (b'Authentication-Results: "(" mx.example.test ")"; spf=pass\r\n', False),
    (b'Authentication-Results: "\\";" mx.example.test; spf=pass\r\n', False),
    (b"Authentication-Results: mx.exam\\ple.test; spf=pass\r\n", False),
    (b"Authentication-Results: \\(;) mx.example.test; spf=pass\r\n", False),
    (b"Authentication-Results: other.example (no end; spf=pass\r\n", False),
    (b"Authentication-Results: other.example (\\); spf=pass\r\n", False),
    (b'Authentication-Results: "other.example; spf=pass\r\n', False),
    (b'Authentication-Results: "other.example\\"; spf=pass\r\n', False),
    (b"Authentication-Results: other.example; spf=pass (mx.example.test)\r\n", True),
    (b"Authentication-Results: other.example (mx.example.test) 1; spf=pass\r\n", True),
    (b"Authentication-Results: (;) other.example; x=mx.example.test\r\n", True),
    (b'Authentication-Results: "other.\\example" (a;b); spf=pass\r\n', True),
    (b'Authentication-Results: other.example; spf=pass (no end\r\n x="nor here\r\n', True),
    (b"Authentication-Results: spf=pass (IP is 192.0.2.1) smtp.mailfrom=a.example; x\r\n", True),
    (b"Authentication-Results: a.mx.example.test; spf=pass\r\n", True),
    (b"Authentication-Results: mx.example.test.evil.example; spf=pass\r\n", True),
    (b"ARC-Authentication-Results: i=1; mx.example.test; spf=pass\r\n", True),
    (b"Received: by whoever\r\n", True),
    (b"no field at all\r\n", True),
]


@pytest.mark.parametrize(("field", "stays"), FIELDS)
def test_only_what_claims_to_be_ours_goes(field: bytes, stays: bool) -> None:
    header = parse_header(b"From: a@example.org\r\n" + field + b"To: b@example.org\r\n")
    expected = _TRACE + b"From: a@example.org\r\n" + (field if stays else b"")
    assert (
        rewritten(header, hostname="mx.example.test", trace=_TRACE)
        == expected + b"To: b@example.org\r\n"
    )


@pytest.mark.parametrize(
    ("named", "stays"),
    [
        ("mx.xn--bcher-kva.example", False),
        ("mx.bücher.example", False),
        ("MX.BÜCHER.Example 1", False),
        ("mx.buecher.example", True),
        ("bücher.example", True),
    ],
)
def test_our_name_is_known_in_every_spelling(named: str, stays: bool) -> None:
    field = f"Authentication-Results: {named}; spf=pass\r\n".encode()
    made = rewritten(parse_header(field), hostname="mx.xn--bcher-kva.example", trace=_TRACE)
    assert made == _TRACE + (field if stays else b"")


def test_policy_fields_stand_below_our_trace_in_their_order() -> None:
    fields = [
        HeaderField(name="X-Spam-Flag", value="YES"),
        HeaderField(name="Authentication-Results", value="mx.example.test;\r\n spf=pass"),
    ]
    assert rewritten(
        parse_header(b"Subject: x\r\n"),
        hostname="mx.example.test",
        trace=_TRACE,
        policy_fields=fields,
    ) == (
        _TRACE + b"X-Spam-Flag: YES\r\nAuthentication-Results: mx.example.test;\r\n spf=pass\r\n"
        b"Subject: x\r\n"
    )


@pytest.mark.parametrize("value", ["a\nB: c", "a\r\nB: c", "a\r\n\r\nbody", "a\rb", ""])
def test_a_policy_field_cannot_become_two(value: str) -> None:
    made = rewritten(
        parse_header(b""),
        hostname="mx.example.test",
        trace=b"",
        policy_fields=[HeaderField(name="X-Gatepost-Verdict", value=value)],
    )
    assert [field.name for field in parse_header(made).fields] == ["X-Gatepost-Verdict"]


@pytest.mark.parametrize(
    "stray",
    [b" clean\r\n", b"\tclean\r\n", b" X-Spam-Flag: NO\r\n\tmore\r\n more\r\n", b" \r\n"],
    ids=["space", "tab", "lines", "blank"],
)
@pytest.mark.parametrize("top", [b"", b"X-Spam-Flag: NO\r\n folded\r\n"], ids=["first", "below"])
def test_nothing_continues_a_field_of_ours(stray: bytes, top: bytes) -> None:
    made = rewritten(
        parse_header(stray + top + b"Subject: x\r\n y\r\n"),
        hostname="mx.example.test",
        trace=_TRACE,
        policy_fields=[HeaderField(name="X-Gatepost-Verdict", value="spam")],
    )
    assert made == _TRACE + b"X-Gatepost-Verdict: spam\r\nSubject: x\r\n y\r\n"


SUBMISSIONS = [
    (b"Subject: x\r\n", ["Date", "Message-ID"]),
    (b"date: yesterday\r\n", ["Message-ID"]),
    (b"Message-Id: <x@y>\r\n", ["Date"]),
    (b"Message-ID: <x@y>\r\nDate: yesterday\r\n", []),
]


@pytest.mark.parametrize(("header", "names"), SUBMISSIONS)
def test_submissions_get_what_they_lack(header: bytes, names: list[str]) -> None:
    added = submission_fields(
        parse_header(header), message_id="abc-1", hostname="mx.example.test", now=_NOW
    )
    fields = parse_header(added).fields
    assert [field.name for field in fields] == names
    values = {field.name: field.text for field in fields}
    assert values.get("Date", "Tue, 4 Mar 2025 05:06:07 +0000") == "Tue, 4 Mar 2025 05:06:07 +0000"
    assert values.get("Message-ID", "<abc-1@mx.example.test>") == "<abc-1@mx.example.test>"
