"""Octets in pieces: all of them, in their order, however large each piece was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.pieces import OWN_OCTETS, Pieces


@given(sizes=st.lists(st.sampled_from([0, 1, 2, OWN_OCTETS - 1, OWN_OCTETS, 2 * OWN_OCTETS])))
def test_nothing_is_lost_or_moved(sizes: list[int]) -> None:
    pieces = Pieces()
    given_ = [bytes((number % 256,)) * size for number, size in enumerate(sizes)]
    for piece in given_:
        pieces.add(piece)
    assert len(pieces) == sum(sizes)
    assert pieces.take() == b"".join(given_)
    assert (len(pieces), pieces.take()) == (0, b"")


@pytest.mark.parametrize("size", [OWN_OCTETS, 100 * OWN_OCTETS])
def test_a_piece_of_some_size_is_not_copied(size: int) -> None:
    piece = bytes(size)
    pieces = Pieces()
    pieces.add(piece)
    assert pieces.take() is piece
