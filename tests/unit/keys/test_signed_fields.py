"""The header is read for signing just as the rest of the product reads it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.mail.message import HeaderError, from_addresses, parse_header
from services.keys.signed_fields import (
    OVERSIGNED,
    SIGNED_IF_PRESENT,
    authors,
    is_only_author,
    signed_fields,
)

_NAMES = {*OVERSIGNED, *SIGNED_IF_PRESENT}
_PIECES = st.sampled_from(
    [
        b"From:",
        b"from",
        b"FROM \t:",
        b"Subject:",
        b"X-Y:",
        b" ",
        b"\t",
        b":",
        b"\r\n",
        b"\r\n ",
        b"you@a.test",
        b"<you@a.test>",
        b"You",
        b"a.test",
        b"@",
        b"<",
        b">",
        b",",
        b".",
        b'"',
        b"(",
        b"\\",
        b"=?utf-8?q?x?=",
        b"\xc3\xbc",
        b"b" * 65,
        b"@A.Test",
        b"-",
        b"[",
        b";",
        b"_",
    ]
)
_BLOCKS = st.lists(_PIECES, max_size=14).map(b"".join)


def _is_block(text: bytes) -> bool:
    """Whether the text is a header block without an empty line, as `SignMessage` wants it."""
    return b"\r\n\r\n" not in text and not text.startswith(b"\r\n")


_HEADERS = _BLOCKS.map(lambda text: text + b"\r\n").filter(_is_block)


@settings(deadline=None)  # on a busy machine any example may take long
@given(_HEADERS)
def test_fields_are_those_that_everybody_else_sees(block: bytes) -> None:
    expected: dict[bytes, list[bytes]] = {}
    for field in parse_header(block).fields:
        if field.key in _NAMES:
            value = field.raw.partition(b":")[2].removesuffix(b"\r\n")
            expected.setdefault(field.key.encode(), []).append(value)
    assert signed_fields(block) == expected


@settings(deadline=None, max_examples=300)
@given(st.lists(_PIECES, max_size=8).map(lambda p: b"From:" + b"".join(p) + b"\r\n"))
def test_a_plain_author_is_the_author_that_everybody_else_sees(block: bytes) -> None:
    if not _is_block(block):
        return
    fields, seen = signed_fields(block), from_addresses(parse_header(block))
    assert authors(fields) == seen
    if is_only_author(fields, "a.test"):
        assert seen.problem is None
        assert [author.domain for author in seen.addresses] == ["a.test"]


@pytest.mark.parametrize(
    ("value", "is_plain"),
    [
        (b"you@a.test", True),
        (b"<you@a.test>", True),
        (b" You and I <y.o.u+1@A.TEST>\t", True),
        (b"=?utf-8?q?J=C3=BCrgen?= <you@a.test>", True),
        (b"you@b.test", False),
        (b"you@a.test.", False),
        (b"you@sub.a.test", False),
        (b"you@a.test, me@a.test", False),
        (b"you@a.test <you@a.test>", False),
        (b'"You" <you@a.test>', False),
        (b"You (me) <you@a.test>", False),
        (b"y..u@a.test", False),
        (b".you@a.test", False),
        (b"b" * 65 + b"@a.test", False),
        (b"You <you@a.test> x", False),
        (b"You <you@a.test", False),
        (b"You\r\n <you@a.test>", False),
        (b"", False),
    ],
)
def test_what_is_plain(value: bytes, is_plain: bool) -> None:
    assert is_only_author(signed_fields(b"From:" + value + b"\r\n"), "a.test") is is_plain


def test_two_fields_are_not_plain_and_none_is_not() -> None:
    both = signed_fields(b"From: you@a.test\r\nfrom : you@a.test\r\n")
    assert not is_only_author(both, "a.test")
    assert not is_only_author(signed_fields(b"Subject: x\r\n"), "a.test")


@pytest.mark.parametrize("block", [b"X: y\r\n" * 2001, b"X: " + b"y" * 512 * 1024 + b"\r\n"])
def test_limits(block: bytes) -> None:
    with pytest.raises(HeaderError):
        signed_fields(block)


def test_a_header_at_the_limit_is_read() -> None:
    assert len(signed_fields(b"Subject: y\r\n" * 2000)[b"subject"]) == 2000
