"""Which strings are domain names, and how they are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.dns import InvalidNameError, canonical
from services.common.dns.name import printable
from services.common.dns.reply import name_of

LONGEST_LABEL = "a" * 63
LONGEST_NAME = ".".join([LONGEST_LABEL] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("given_name", "asked"),
    [
        ("example.test", "example.test"),
        ("Example.TEST.", "example.test"),
        ("localhost", "localhost"),
        (".", "."),
        ("_25._tcp.mx.example.test", "_25._tcp.mx.example.test"),
        ("o'brien+x=1%2f.example.test", "o'brien+x=1%2f.example.test"),
        ("two  spaces.example.test", "two  spaces.example.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        (LONGEST_NAME, LONGEST_NAME),
        (LONGEST_NAME + ".", LONGEST_NAME),
    ],
)
def test_names_have_one_spelling(given_name: str, asked: str) -> None:
    assert canonical(given_name) == asked


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".example.test",
        "example..test",
        "example.test..",
        LONGEST_LABEL + "a.test",
        LONGEST_NAME + "b",
        "ü b.test",
        "a\tb.test",
        "a\nb.test",
        "a\0.test",
        "a\x7f.test",
        "a\\.b.test",
        "ｅxample.test",
        "example。test",
        "a\u200d.test",
        "\udc80.test",
        "ü" * 63 + ".test",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        canonical(name)


@given(st.text(max_size=300))
def test_any_text_is_a_name_for_the_wire_or_refused(text: str) -> None:
    try:
        name = canonical(text)
    except InvalidNameError:
        return
    assert canonical(name) == name
    assert len(name_of(name).to_wire() or b"") <= 255


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\r\nlines", "two??lines"),
        ("\x1b[31mred", "?[31mred"),
        ("ü", "?"),
        ("0123456789", "0123456789"),
        ("0123456789a", "0123456..."),
    ],
)
def test_details_are_one_printable_line(text: str, line: str) -> None:
    assert printable(text, limit=10) == line
