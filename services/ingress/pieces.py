"""Octets that are collected piece by piece and wanted as a whole.

Pieces of some size are kept as they came, and copied once, at the end. Smaller ones are joined as
they come: a client may send two octets at a time, and each as an object of its own takes forty.
"""

from __future__ import annotations

from typing import Final

OWN_OCTETS: Final = 1024
"""A piece with so many is kept as it is."""


class Pieces:
    """What was collected so far; `len` is its octets."""

    __slots__ = ("_octets", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._octets = 0

    def __len__(self) -> int:
        return self._octets

    def add(self, piece: bytes) -> None:
        """The next octets."""
        self._octets += len(piece)
        if len(piece) >= OWN_OCTETS:
            self._pieces.append(piece)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def take(self) -> bytes:
        """All of it; nothing is left."""
        whole = b"".join(self._pieces)
        self.clear()
        return whole

    def clear(self) -> None:
        """Drop all of it."""
        self._pieces.clear()
        self._octets = 0
