"""Content on its way in: where the header ends, what is refused, how much is kept."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.queue.v1.record_pb2 import ContentReference
from services.common.config.smtp import Limits
from services.common.mail.reply import (
    HEADER_TOO_BIG,
    MESSAGE_TOO_BIG,
    STORE_FULL,
    STORE_UNAVAILABLE,
    TOO_MANY_HOPS,
    Reply,
)
from services.common.queue.content import MAX_INLINE_OCTETS
from services.common.store import Full, StoreError, Unavailable
from services.ingress.capacity import Capacity, Reservation
from services.ingress.intake import CHUNK_OCTETS, Content, Intake, IntakeLimits
from services.ingress.line_ends import BARE_LINE_END

_CLIENT = ip_address("192.0.2.1")
_LIMITS = IntakeLimits(octets=0, header_octets=4096, received_fields=3)


class _Spool:
    """Keeps chunks, or fails."""

    def __init__(self, failure: StoreError | None = None) -> None:
        self.chunks: list[bytes] = []
        self.failure = failure
        self.discarded = False

    @property
    def octets(self) -> int:
        return sum(map(len, self.chunks))

    async def append(self, chunk: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.chunks.append(chunk)

    async def complete(self, first_chunk: bytes) -> ContentReference:
        raise NotImplementedError

    async def discard(self) -> None:
        self.discarded = True


def _room(**limits: int) -> Reservation:
    return Capacity(lambda: Limits(**limits)).reserve(_CLIENT)  # type: ignore[arg-type]


async def _taken(blocks: list[bytes], spool: _Spool | None = None, **limits: int) -> Any:
    made = IntakeLimits(
        octets=limits.get("octets", 0),
        header_octets=limits.get("header_octets", 4096),
        received_fields=limits.get("received_fields", 3),
    )
    intake = Intake(made, lambda: spool or _Spool(), _room())  # type: ignore[arg-type,return-value]
    for block in blocks:
        intake.add(block)
        if intake.is_full:
            await intake.store()
    return await intake.finish()


# (content, header, what follows it)
SPLITS = [
    (b"A: b\r\n\r\ntext\r\n", b"A: b\r\n", b"\r\ntext\r\n"),
    (b"A: b\r\n\r\n", b"A: b\r\n", b"\r\n"),
    (b"A: b\r\n", b"A: b\r\n", b""),
    (b"\r\ntext\r\n", b"", b"\r\ntext\r\n"),
    (b"\r\n", b"", b"\r\n"),
    (b"", b"", b""),
    (b"A: b\r\n c\r\n\r\n\r\n\r\nx\r\n", b"A: b\r\n c\r\n", b"\r\n\r\n\r\nx\r\n"),
]


@pytest.mark.parametrize(("wire", "header", "rest"), SPLITS)
async def test_header_and_body_however_it_is_cut(wire: bytes, header: bytes, rest: bytes) -> None:
    for cut in range(len(wire) + 1):
        content = await _taken([wire[:cut], wire[cut:]])
        assert (bytes(content.header), content.front, content.size) == (header, rest, len(wire))
    content = await _taken([bytes((octet,)) for octet in wire])
    assert (bytes(content.header), content.front) == (header, rest)


@given(body=st.binary(max_size=60), cuts=st.lists(st.integers(0, 90), max_size=5))
async def test_nothing_is_lost_or_added(body: bytes, cuts: list[int]) -> None:
    wire = b"A: b\r\n\r\n" + body
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    content = await _taken([wire[start:end] for start, end in pairwise(edges)])
    assert bytes(content.header) + content.front == wire


@pytest.mark.parametrize("block_octets", [1000, 65_536, 300_000, 5_000_000])
async def test_large_content_goes_to_the_spool_and_memory_stays(block_octets: int) -> None:
    header, body = b"A: b\r\n", b"\r\n" + b"0123456789abcdef" * 125_000
    wire = header + body
    spool = _Spool()
    blocks = [wire[at : at + block_octets] for at in range(0, len(wire), block_octets)]
    content = await _taken(blocks, spool)
    assert content.front + b"".join(spool.chunks) == body
    assert content.front == b"\r\n"
    assert all(len(chunk) < CHUNK_OCTETS + block_octets + 1 for chunk in spool.chunks)
    assert content.spooled_octets == spool.octets
    await content.discard()
    assert spool.discarded


async def test_the_inline_limit_is_exact() -> None:
    header = b"A: b\r\n"
    for octets, spooled in ((MAX_INLINE_OCTETS, 0), (MAX_INLINE_OCTETS + 1, MAX_INLINE_OCTETS + 1)):
        body = b"x" * (octets - len(header))
        content = await _taken([header + b"\r\n", body])
        assert (content.spooled_octets > 0) == (spooled > 0)


REFUSED = [
    ([b"a" * 11], {"octets": 10}, MESSAGE_TOO_BIG),
    ([b"a" * 5] * 3, {"octets": 10}, MESSAGE_TOO_BIG),
    ([b"A: b\r\n" * 10, b"\r\n"], {"header_octets": 50}, HEADER_TOO_BIG),
    ([b"A: " + b"b" * 100], {"header_octets": 50}, HEADER_TOO_BIG),
    ([b"Received: x\r\n" * 4 + b"\r\n"], {}, TOO_MANY_HOPS),
    ([b"received:x\r\n" * 4], {}, TOO_MANY_HOPS),
]


@pytest.mark.parametrize(("blocks", "limits", "reply"), REFUSED)
async def test_refusals(blocks: list[bytes], limits: dict[str, int], reply: Reply) -> None:
    assert await _taken(blocks, **limits) == reply


async def test_limits_themselves_are_allowed() -> None:
    assert isinstance(await _taken([b"a" * 10], octets=10), Content)
    assert isinstance(await _taken([b"Received: x\r\n" * 3 + b"\r\n"]), Content)
    assert isinstance(
        await _taken([b"A: " + b"b" * 45 + b"\r\n\r\nlong body"], header_octets=50), Content
    )


@pytest.mark.expect_warnings("content cannot be stored")
@pytest.mark.parametrize(
    ("failure", "reply"), [(Full("x"), STORE_FULL), (Unavailable("x"), STORE_UNAVAILABLE)]
)
async def test_what_cannot_be_stored_is_refused_for_now(failure: StoreError, reply: Reply) -> None:
    spool = _Spool(failure)
    assert await _taken([b"A: b\r\n\r\n", *[b"x" * 100_000] * 10], spool) == reply
    assert spool.discarded


async def test_the_first_reason_is_told_and_the_rest_is_dropped() -> None:
    intake = Intake(_LIMITS, _Spool, _room())  # type: ignore[arg-type]
    intake.add(b"A: b\r\n\r\nbody")
    intake.refuse(BARE_LINE_END)
    intake.refuse(MESSAGE_TOO_BIG)
    for _ in range(100):
        intake.add(b"x" * CHUNK_OCTETS)
        assert not intake.is_full
    assert await intake.finish() == BARE_LINE_END


@pytest.mark.parametrize("before", [0, CHUNK_OCTETS + 1], ids=["inline", "spooled"])
async def test_content_in_tiny_blocks_takes_no_more_memory_than_is_counted(before: int) -> None:
    configured = Limits()
    room = Capacity(lambda: configured).reserve(_CLIENT)
    intake = Intake(_LIMITS, _Spool, room)  # type: ignore[arg-type]
    intake.add(b"A: b\r\n\r\n" + b"x" * before)
    if intake.is_full:
        await intake.store()
    octets = 40_000
    # Two octets at a time, none of which is an object that there is anyway.
    blocks = (b"%02x" % (number % 256) for number in range(octets // 2))
    tracemalloc.start()
    try:
        for block in blocks:
            intake.add(block)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3 * octets
    assert isinstance(await intake.finish(), Content)
