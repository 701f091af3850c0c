"""Content of BDAT: lines that are lines, however the chunks are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.chunk_lines import ChunkLines
from services.ingress.command_line import parse_bdat
from services.ingress.line_ends import BARE_LINE_END, NUL_OCTET

_WIRE = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b".", b"\r", b"\n", b"\0", b"ab"]), max_size=20
).map(b"".join)


def _parsed(wire: bytes, cuts: list[int], *, mend: bool = False) -> tuple[bytes, ChunkLines]:
    lines = ChunkLines(mend_line_ends=mend)
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    content = b"".join(lines.feed(wire[start:end]) for start, end in pairwise(edges))
    return content + lines.end(), lines


CONTENTS = [
    (b"", b"", None),
    (b"a", b"a\r\n", None),
    (b"a\r\n", b"a\r\n", None),
    (b"\r\n.\r\n", b"\r\n.\r\n", None),
    (b"a\r", b"a\r\r\n", BARE_LINE_END),
    (b"a\nb\r\n", b"a\nb\r\n", BARE_LINE_END),
    (b"a\r\r\n", b"a\r\r\n", BARE_LINE_END),
    (b"\n", b"\n\r\n", BARE_LINE_END),
    (b"\0", b"\0\r\n", NUL_OCTET),
]


@pytest.mark.parametrize(("wire", "content", "fault"), CONTENTS)
def test_contents(wire: bytes, content: bytes, fault: object) -> None:
    for cut in range(len(wire) + 1):
        found, lines = _parsed(wire, [cut])
        assert (found, lines.fault) == (content, fault)


@given(wire=_WIRE, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_cuts_change_nothing(wire: bytes, cuts: list[int]) -> None:
    whole, cut = _parsed(wire, []), _parsed(wire, cuts)
    assert whole[0] == cut[0]
    assert (whole[1].fault is None) == (cut[1].fault is None)
    if cut[1].fault is None:
        assert cut[0] in (wire, wire + b"\r\n")
        assert not cut[0] or cut[0].endswith(b"\r\n")


@given(wire=_WIRE, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_mended_content_has_no_bare_lf(wire: bytes, cuts: list[int]) -> None:
    content, _ = _parsed(wire, cuts, mend=True)
    assert content.count(b"\n") == content.count(b"\r\n")


ARGUMENTS = [
    ("0", (0, False)),
    ("12", (12, False)),
    ("12 LAST", (12, True)),
    ("12 last", (12, True)),
    ("", None),
    ("LAST", None),
    ("-1", None),
    ("+1", None),
    ("1_000", None),
    ("١", None),
    ("12 LAST x", None),
    ("12  LAST", None),
    ("9" * 21, None),
]


@pytest.mark.parametrize(("argument", "parsed"), ARGUMENTS)
def test_arguments(argument: str, parsed: tuple[int, bool] | None) -> None:
    assert parse_bdat(argument) == parsed
