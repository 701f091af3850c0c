"""The incremental body hash against the whole-body canonicalisation of dkimpy."""

import hashlib
import random
import time
from itertools import pairwise

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from services.common.mail.body_hash import BodyHash, Canonicalization

_REFERENCE = {Canonicalization.SIMPLE: Simple, Canonicalization.RELAXED: Relaxed}

# Dense in what the rules are about: white space, line ends, halves of line ends.
_BODIES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n", b"\r", b"\n", b"a", b"bc", b"."]), max_size=30
).map(b"".join)


def _split(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def _hash(blocks: list[bytes], canonicalization: Canonicalization, limit: int | None) -> BodyHash:
    made = BodyHash(canonicalization, limit)
    for block in blocks:
        made.update(block)
    made.digest()
    return made


@pytest.mark.parametrize("canonicalization", Canonicalization)
@given(body=_BODIES, cuts=st.lists(st.integers(0, 100), max_size=5), data=st.data())
def test_blocks_give_the_hash_of_the_whole(
    canonicalization: Canonicalization, body: bytes, cuts: list[int], data: st.DataObject
) -> None:
    # What ends without a line end is, to dkimpy alone, not the end of a line.
    whole = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    canonical = _REFERENCE[canonicalization].canonicalize_body(whole)
    limit = data.draw(st.none() | st.integers(0, len(canonical) + 2))
    made = _hash(_split(body, cuts), canonicalization, limit)
    assert made.digest() == hashlib.sha256(canonical[:limit]).digest()
    assert made.total_octets == len(canonical)
    assert made.covered_octets == len(canonical[:limit])


@pytest.mark.parametrize(
    ("canonicalization", "body", "canonical"),
    [
        # RFC 6376 §3.4.3 to §3.4.5
        ("simple", b"", b"\r\n"),
        ("relaxed", b"", b""),
        ("simple", b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n"),
        ("relaxed", b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        ("relaxed", b" \t \r\n\t\r\n", b""),
        ("simple", b"no line end", b"no line end\r\n"),
        ("relaxed", b"no line end \t", b"no line end\r\n"),
    ],
)
def test_examples(canonicalization: str, body: bytes, canonical: bytes) -> None:
    for blocks in ([body], [bytes([octet]) for octet in body]):
        made = _hash(blocks, Canonicalization(canonicalization), None)
        assert made.digest() == hashlib.sha256(canonical).digest()


@pytest.mark.parametrize("body", [b"\r\n", b" ", b"\t ", b" \r\n", b"\r", b"a \t\tb\r\n"])
def test_hostile_bodies_cost_no_more_than_others(body: bytes) -> None:
    blocks = [body * (65536 // len(body))] * 64
    started = time.process_time()
    made = _hash(blocks, Canonicalization.RELAXED, None)
    assert time.process_time() - started < 1.5  # 4 MiB; ordinary text takes 0.02 s
    assert made.total_octets <= 64 * 65536 + 2


def test_what_comes_after_the_end_is_refused() -> None:
    made = BodyHash("simple")
    made.digest()
    with pytest.raises(ValueError, match="ended"):
        made.update(b"more")


@pytest.mark.parametrize(("canonicalization", "limit"), [("nofws", None), ("simple", -1)])
def test_impossible_settings_are_refused(canonicalization: str, limit: int | None) -> None:
    with pytest.raises(ValueError, match=r"nofws|negative"):
        BodyHash(canonicalization, limit)


def test_large_ordinary_bodies_in_blocks_of_any_size() -> None:
    source = random.Random(7)
    words = [b"mail", b"over", b"  ", b"\t", b" ", b"wire", b"\r\n", b"\r\n\r\n"]
    body = b"".join(source.choice(words) for _ in range(50_000)) + b"\r\n"
    expected = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    for size in (1, 7, 4096, len(body)):
        blocks = [body[at : at + size] for at in range(0, len(body), size)]
        assert _hash(blocks, Canonicalization.RELAXED, None).digest() == expected
