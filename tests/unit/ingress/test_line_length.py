"""Long lines, however the content is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.line_length import LineLength


def _fits(blocks: list[bytes], limit: int) -> bool:
    lines = LineLength(limit)
    return all(lines.fits(block) for block in blocks)


CASES = [
    (b"", True),
    (b"12345\r\n", True),
    (b"123456\r\n", False),
    (b"\r\n" * 50, True),
    (b"1\r\n123456\r\n1\r\n", False),
    (b"1\r\n12345\r\n" * 20 + b"12345\r\n", True),
    (b"1\r\n12345\r\n" * 20 + b"123456\r\n", False),
    (b"12345\r\n1234567", False),
    (b"\r\n\r\n123456", True),  # it may be that only its CR has come
]


@pytest.mark.parametrize(("content", "fits"), CASES)
def test_lines_of_five_octets(content: bytes, fits: bool) -> None:
    assert _fits([content], 5) is fits
    assert _fits([bytes((octet,)) for octet in content], 5) is fits


@given(st.lists(st.integers(0, 12)), st.integers(1, 12), st.lists(st.integers(0, 100), max_size=8))
def test_the_longest_line_decides(lengths: list[int], limit: int, cuts: list[int]) -> None:
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    edges = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    blocks = [content[start:end] for start, end in pairwise(edges)]
    assert _fits(blocks, limit) is (max(lengths, default=0) <= limit)
