"""Text of strangers on one line of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.mail.printable import is_one_line, one_line


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        ("plain", 20, "plain"),
        ("  trimmed \r\n", 20, "trimmed"),
        ("a\r\nb\tc", 20, "a  b c"),
        ("a\x00\x1b\x7f\x85\u2028\u202e\ud800b", 20, "a???????b"),
        ("کتاب\u200cخانه", 40, "کتاب\u200cخانه"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc..."),
        ("ab   cdef", 6, "ab..."),
        ("ööö", 6, "ööö"),
        ("öööö", 6, "ö..."),
        ("abc", 2, ".."),
        ("abc", 0, ""),
        ("", 5, ""),
    ],
)
def test_one_line(text: str, limit: int, line: str) -> None:
    assert one_line(text, limit=limit) == line


@given(st.text(), st.integers(0, 30))
def test_always_one_line_of_the_length_asked_for(text: str, limit: int) -> None:
    line = one_line(text, limit=limit)
    assert is_one_line(line)
    assert len(line.encode()) <= limit
    assert len(line.splitlines()) <= 1
