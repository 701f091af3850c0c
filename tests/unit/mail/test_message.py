"""Header blocks: octets are kept, anything parses, and what we add cannot be bent."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.mail.message import (
    HeaderError,
    folded,
    header_length,
    parse_header,
    split_message,
    unfold,
)

HEADER = (
    b"Received: from a\r\n by b\r\n"
    b"received: from b\r\n\tby c\r\n"
    b"From: User <user@example.org>\r\n"
    b"SUBJECT : =?utf-8?q?x?=\r\n"
    b"X-Raw: \xff\xfe\r\n"
)


@pytest.mark.parametrize(
    ("data", "header", "body"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"body\r\n"),
        (b"A: b\r\n\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n\r\n\r\n\r\n", b"A: b\r\n", b"\r\n\r\n"),
        (b"\r\nbody\r\n", b"", b"body\r\n"),
        (b"\r\nA: b\r\n\r\nbody", b"", b"A: b\r\n\r\nbody"),
        (b"\r\n", b"", b""),
        (b"", b"", b""),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b", b"A: b", b""),
        (b"no field\r\nA: b\r\n\r\nbody", b"no field\r\nA: b\r\n", b"body"),
        (b"A: b\n\nbody\r\n\r\n", b"A: b\n", b"body\r\n\r\n"),
        (b"A: b\r\n\nbody", b"A: b\r\n", b"body"),
        (b"A: b\n\r\nbody", b"A: b\n", b"body"),
        (b"A: b\r\n \r\nB: c\r\n\r\nbody", b"A: b\r\n \r\nB: c\r\n", b"body"),
        (b"A: b\r\r\nB: c\r\n\r\nbody", b"A: b\r\r\nB: c\r\n", b"body"),
    ],
)
def test_split(data: bytes, header: bytes, body: bytes) -> None:
    assert split_message(data) == (header, body)


def test_the_end_of_the_header_is_found_as_soon_as_it_is_there() -> None:
    data = HEADER + b"\r\nbody\r\n\r\nmore"
    found = [header_length(data[:length]) for length in range(len(data) + 1)]
    complete = len(HEADER) + 2
    assert found == [None] * complete + [len(HEADER)] * (len(data) + 1 - complete)
    assert header_length(bytearray(b"\r\n")) == 0


def test_fields() -> None:
    block = parse_header(HEADER)
    assert bytes(block) == HEADER
    assert [field.name for field in block.fields] == [
        "Received", "received", "From", "SUBJECT", "X-Raw",
    ]  # fmt: skip
    assert block.count("RECEIVED") == 2
    assert [field.value for field in block.fields_named("Received")] == [
        b"from a by b", b"from b\tby c",
    ]  # fmt: skip
    assert block.fields_named("Subject")[0].text == "=?utf-8?q?x?="
    assert block.fields_named("x-raw")[0].text == "\ufffd\ufffd"
    assert block.has("from")
    assert not block.has("Date")
    assert not block.has("")
    assert block.malformed == ()


def test_fields_are_removed_and_added_without_touching_the_others() -> None:
    block = parse_header(HEADER)
    kept = block.without(lambda field: field.key == "received")
    assert bytes(kept) == HEADER[HEADER.index(b"From") :]
    new = kept.prepended([folded("X-One", "1"), folded("X-Two", "2")])
    assert bytes(new) == b"X-One: 1\r\nX-Two: 2\r\n" + bytes(kept)
    assert new.has("x-two")


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (b"no colon\r\nFrom: a@b.example\r\n", ["", "From"]),
        (b"From: a@b.example\r\nno colon\r\nFrom: c@d.example\r\n", ["From", "", "From"]),
        (b" starts folded\r\nFrom: a@b.example\r\n", ["", "From"]),
        (b"From user Mon Jan  1 00:00:00 2024\r\nA: b\r\n", ["", "A"]),
        (b">From: a@b.example\r\n", [">From"]),
        (b": no name\r\nA: b\r\n", ["", "A"]),
        (b"Two Words: x\r\n", [""]),
        (b"F\xc3\xa4: x\r\n", [""]),
        (b"Fr\x00om: x\r\n", [""]),
        (b"From\t : x\r\n", ["From"]),
        (b"\xff\xfe\r\n", [""]),
        (b"A: b", ["A"]),
        (b"A:\r\n", ["A"]),
        (b"A: b\nFrom: c\n", ["A", "From"]),
        (b"A: b\rFrom: c\r\n", ["A"]),
        (b"", []),
        (b"A: b\r\n\r\nB: c\r\n", ["A"]),
    ],
)
def test_whatever_comes_parses(block: bytes, names: list[str]) -> None:
    parsed = parse_header(block)
    assert [field.name for field in parsed.fields] == names
    assert len(parsed.malformed) == names.count("")
    assert bytes(parsed) == block[: header_length(block)]


def test_a_malformed_line_keeps_its_place_and_its_octets() -> None:
    raw = b"A: b\r\nno \xff colon\r\n continued\r\nC: d\r\n"
    parsed = parse_header(raw)
    assert parsed.malformed[0].raw == b"no \xff colon\r\n continued\r\n"
    assert parsed.malformed[0].value == b"no \xff colon continued"
    assert bytes(parsed) == raw


def test_limits() -> None:
    block = b"A: b\r\n" * 10
    assert len(parse_header(block, max_octets=60, max_fields=10).fields) == 10
    for octets, fields in ((59, 10), (60, 9)):
        with pytest.raises(HeaderError) as caught:
            parse_header(block, max_octets=octets, max_fields=fields)
        assert str(caught.value.reply).startswith("552 5.3.4 ")
    # A body behind the header does not count.
    assert parse_header(b"A: b\r\n\r\n" + b"x" * 100, max_octets=60).has("A")


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"From: ", b"A", b"\0", b"\xff"]
            ),
            st.binary(max_size=5),
        )
    ).map(b"".join)
)
@example(b"\n\r\n")
def test_no_octet_is_lost(data: bytes) -> None:
    header, body = split_message(data)
    assert data.startswith(header)
    assert data.endswith(body)
    assert len(data) - len(header) - len(body) in (0, 1, 2)
    block = parse_header(header)
    assert bytes(block) == header
    assert bytes(parse_header(data)) == header
    for field in block.fields:
        assert field.is_malformed or re.fullmatch(r"[!-9;-~]+", field.name)
        assert not field.value.startswith((b" ", b"\t"))


@pytest.mark.parametrize(
    ("raw", "unfolded"),
    [
        (b"a\r\n b\r\n\tc\r\n", b"a b\tc\r\n"),
        (b"a\n b", b"a b"),
        (b"a\r\n", b"a\r\n"),
        (b"a\r\nb", b"a\r\nb"),
        (b"a\r\n \r\n b", b"a  b"),
    ],
)
def test_unfold(raw: bytes, unfolded: bytes) -> None:
    assert unfold(raw) == unfolded


@pytest.mark.parametrize(
    ("parts", "raw"),
    [
        (("value",), b"X-Name: value\r\n"),
        (("one", "two"), b"X-Name: one two\r\n"),
        (("w" * 40, "x" * 40), b"X-Name: " + b"w" * 40 + b"\r\n " + b"x" * 40 + b"\r\n"),
        (
            ("one", "two " + "w" * 66, "three"),
            b"X-Name: one\r\n two " + b"w" * 66 + b" three\r\n",
        ),
        (("w" * 30 + " " + "x" * 40,), b"X-Name: " + b"w" * 30 + b"\r\n " + b"x" * 40 + b"\r\n"),
        (("w" * 100,), b"X-Name: " + b"w" * 100 + b"\r\n"),
        (("yes\r\nX-Injected: no",), b"X-Name: yes  X-Injected: no\r\n"),
        (("yes\r\n\r\nbody",), b"X-Name: yes    body\r\n"),
        (("a\x00b\x1bc\rd\ne\u2028f",), b"X-Name: a?b?c d e?f\r\n"),
        (("jörg",), b"X-Name: j\\xf6rg\r\n"),
        (("",), b"X-Name:\r\n"),
        (("one", "", "two"), b"X-Name: one two\r\n"),
        (("a:", "b:"), b"X-Name: a: b:\r\n"),
    ],
)  # fmt: skip
def test_folded(parts: tuple[str, ...], raw: bytes) -> None:
    assert folded("X-Name", *parts) == raw


def test_folded_in_utf8() -> None:
    assert folded("X-Name", "jörg", utf8=True) == "X-Name: jörg\r\n".encode()
    lines = folded("X-Name", "ö" * 2000, utf8=True).split(b"\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert "".join(line.decode().strip() for line in lines) == "X-Name: " + "ö" * 2000


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "Ä", "A\x00", "x" * 77])
def test_no_field_without_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="name of a header field"):
        folded(name, "value")


@given(
    st.from_regex(r"[A-Za-z-]{1,76}", fullmatch=True),
    st.lists(st.text(max_size=200), min_size=1, max_size=4),
    st.booleans(),
)
@example("N", ["a" * 3000 + " " + "b" * 3000], False)
def test_what_is_folded_is_one_field(name: str, parts: list[str], utf8: bool) -> None:
    raw = folded(name, *parts, utf8=utf8)
    block = parse_header(raw)
    assert [field.name for field in block.fields] == [name]
    lines = raw.removesuffix(b"\r\n").split(b"\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    assert not set(b"".join(lines)) & set(b"\r\n\0\t")
    # A line is longer than the limit only if it is a single word, with the name before it at most.
    assert all(len(line) <= 78 or len(line.split()) <= 2 for line in lines)


@given(st.lists(st.from_regex(r"[a-z]{1,40}", fullmatch=True), min_size=1, max_size=40))
def test_unfolding_gives_back_what_was_folded(words: list[str]) -> None:
    value = " ".join(words)
    assert parse_header(folded("X-Name", value)).fields[0].text == value
    assert parse_header(folded("X-Name", *words)).fields[0].text == value
