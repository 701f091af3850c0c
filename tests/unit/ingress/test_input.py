"""What a client sent, taken in pieces: none is lost, and none is moved about for each."""

from __future__ import annotations

import asyncio

import pytest

from services.ingress.input import BUFFER_OCTETS, EndOfInput, Input


def _input(octets: bytes) -> Input:
    made = Input(limit=BUFFER_OCTETS, loop=asyncio.get_running_loop())
    made.feed_data(octets)
    made.feed_eof()
    return made


@pytest.mark.parametrize(
    ("most", "blocks"),
    [
        (None, [b"abcdefg"]),
        (8, [b"abcdefg"]),
        (7, [b"abcdefg"]),
        (6, [b"abcdef", b"g"]),
        (3, [b"abc", b"def", b"g"]),
    ],
)
async def test_a_block_has_no_more_than_was_asked_for(
    most: int | None, blocks: list[bytes]
) -> None:
    octets = _input(b"abcdefg")
    assert [await octets.block(most) for _ in blocks] == blocks
    with pytest.raises(EndOfInput):
        await octets.block(most)


async def test_lines_and_blocks_take_turns() -> None:
    octets = _input(b"one\r\n12two\r\n345")
    assert await octets.line(100) == b"one\r\n"
    assert await octets.block(2) == b"12"
    assert octets.has_line
    assert await octets.line(100) == b"two\r\n"
    octets.unread(b"0")
    assert await octets.block() == b"0345"
