"""What leaves us: CRLF only, dots doubled, however the content is cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.smtp.wire import DotStuffing, LineEnds

CONTENTS = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"bc"]), max_size=30
).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=6)


def cut(content: bytes, cuts: list[int]) -> list[bytes]:
    blocks = []
    for at in sorted(cuts, reverse=True):
        blocks.insert(0, content[at:])
        content = content[:at]
    return [content, *blocks]


def on_the_wire(blocks: list[bytes]) -> bytes:
    line_ends, dots = LineEnds(), DotStuffing()
    sent = b"".join(dots.stuffed(line_ends.normalised(block)) for block in blocks)
    return sent + dots.stuffed(line_ends.end()) + dots.end()


def as_the_peer_reads(sent: bytes) -> tuple[bytes, bytes]:
    """The content (RFC 5321 §4.5.2), and what follows its end."""
    taken = b""
    while True:
        line, end, sent = sent.partition(b"\r\n")
        assert end
        if line == b".":
            return taken, sent
        taken += (line[1:] if line.startswith(b".") else line) + end


@given(content=CONTENTS, cuts=CUTS)
def test_one_mail_arrives_and_it_is_the_one(content: bytes, cuts: list[int]) -> None:
    sent = on_the_wire(cut(content, cuts))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", sent)
    taken, rest = as_the_peer_reads(sent)
    assert rest == b""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    if lines and not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    assert taken == lines


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nMAIL FROM:<x>\r\n", b"a\r\n..\r\nMAIL FROM:<x>\r\n.\r\n"),
        (b"a\n.\nb\r.\r\n", b"a\r\n..\r\nb\r\n..\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
    ],
)
def test_examples(content: bytes, sent: bytes) -> None:
    assert on_the_wire([content]) == sent
    assert on_the_wire([bytes([octet]) for octet in content]) == sent
