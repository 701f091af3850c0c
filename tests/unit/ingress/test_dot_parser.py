"""The end of content and its dots, against a parser that looks at everything at once."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.dot_parser import DotParser
from services.ingress.line_ends import BARE_LINE_END, NUL_OCTET

_WIRE = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b".", b"\r\n.\r\n", b"\r", b"\n", b"\0", b"a", b".."]),
    max_size=25,
).map(b"".join)


def _blocks(wire: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges) if start < end]


def _parsed(blocks: list[bytes], *, mend: bool = False) -> tuple[bytes, DotParser]:
    parser = DotParser(mend_line_ends=mend)
    content = b""
    for index, block in enumerate(blocks):
        content += parser.feed(block)
        if parser.ended:
            parser.rest += b"".join(blocks[index + 1 :])
            break
    return content, parser


# (what follows DATA, content, what is left for the next command)
CONTENTS = [
    (b".\r\n", b"", b""),
    (b".\r\nQUIT\r\n", b"", b"QUIT\r\n"),
    (b"a\r\n.\r\n", b"a\r\n", b""),
    (b"\r\n.\r\n", b"\r\n", b""),
    (b"..\r\n.\r\n", b".\r\n", b""),
    (b"..a\r\n...b\r\n.\r\n", b".a\r\n..b\r\n", b""),
    (b".a\r\n.\r\n", b"a\r\n", b""),
    (b"a.\r\nb\r\n.\r\n", b"a.\r\nb\r\n", b""),
    (b"a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n"),
    (b"a\r\n.\r\n\r\n.\r\n", b"a\r\n", b"\r\n.\r\n"),
]


@pytest.mark.parametrize(("wire", "content", "rest"), CONTENTS)
def test_content_ends_at_the_lone_dot_however_it_is_cut(
    wire: bytes, content: bytes, rest: bytes
) -> None:
    for cut in range(len(wire) + 1):
        found, parser = _parsed(_blocks(wire, [cut]))
        assert (found, parser.ended, parser.rest, parser.fault) == (content, True, rest, None)
    found, parser = _parsed([bytes((octet,)) for octet in wire])
    assert (found, parser.rest) == (content, rest)


SMUGGLED_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n", b"\n\r.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\n",
]  # fmt: skip


@pytest.mark.parametrize("end", SMUGGLED_ENDS)
def test_a_wrong_end_is_no_end_and_spoils_the_message(end: bytes) -> None:
    wire = b"one" + end + b"MAIL FROM:<evil@example.net>\r\n.\r\n"
    for cut in range(len(wire) + 1):
        _, parser = _parsed(_blocks(wire, [cut]))
        assert parser.ended
        assert parser.rest == b""
        assert parser.fault in (BARE_LINE_END, NUL_OCTET)


@given(wire=_WIRE, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_blocks_give_what_the_whole_gives(wire: bytes, cuts: list[int]) -> None:
    whole, cut = _parsed([wire] if wire else []), _parsed(_blocks(wire, cuts))
    assert (whole[0], whole[1].ended) == (cut[0], cut[1].ended)
    # Of two faults either may be told.
    assert (whole[1].fault is None) == (cut[1].fault is None)
    assert whole[1].rest == cut[1].rest


@given(wire=_WIRE, cuts=st.lists(st.integers(0, 200), max_size=6), mend=st.booleans())
def test_the_end_is_the_first_dot_alone_on_a_crlf_line(
    wire: bytes, cuts: list[int], mend: bool
) -> None:
    end = (b"\r\n" + wire).find(b"\r\n.\r\n")
    content, parser = _parsed(_blocks(wire, cuts), mend=mend)
    assert parser.ended == (end >= 0)
    if parser.ended:
        assert parser.rest == wire[end + len(b".\r\n") :]
        assert content == b"" or content.endswith(b"\r\n")


@given(body=st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a"]), max_size=12))
def test_stuffed_lines_come_back(body: list[bytes]) -> None:
    lines = b"".join(line + b"\r\n" for line in body)
    stuffed = re.sub(rb"(?m)^\.", b"..", lines)
    content, parser = _parsed(_blocks(stuffed + b".\r\n", [3, 7]))
    assert (content, parser.fault) == (lines, None)


@given(wire=_WIRE, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_mended_content_has_no_bare_lf(wire: bytes, cuts: list[int]) -> None:
    content, parser = _parsed(_blocks(wire + b"\r\n.\r\n", cuts), mend=True)
    assert parser.ended
    assert content.count(b"\n") == content.count(b"\r\n")
    if b"\r" not in wire.replace(b"\r\n", b"") and b"\0" not in wire:
        assert parser.fault is None


def test_mending_keeps_lines_and_undoes_their_dots() -> None:
    content, parser = _parsed([b"a\n", b".", b".b\nc\r\n.", b"\nd\r\n.\r\n"], mend=True)
    assert content == b"a\r\n.b\r\nc\r\n\r\nd\r\n"
    assert parser.fault is None


def test_nothing_can_be_fed_after_the_end() -> None:
    parser = DotParser()
    parser.feed(b".\r\n")
    with pytest.raises(ValueError, match="ended"):
        parser.feed(b"more")


@given(
    wire=_WIRE,
    cuts=st.lists(st.integers(0, 200), max_size=6),
    wanted=st.integers(0, 7),
    mend=st.booleans(),
)
def test_what_is_skipped_ends_where_it_would_have_ended(
    wire: bytes, cuts: list[int], wanted: int, mend: bool
) -> None:
    blocks = _blocks(wire, cuts)
    _, fed = _parsed(blocks, mend=mend)
    parser = DotParser(mend_line_ends=mend)
    for index, block in enumerate(blocks):
        if index < wanted:
            parser.feed(block)
        else:
            parser.skip(block)
        if parser.ended:
            parser.rest += b"".join(blocks[index + 1 :])
            break
    assert (parser.ended, parser.rest) == (fed.ended, fed.rest)
