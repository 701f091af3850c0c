"""The hash of a body that comes in pieces, for DKIM: RFC 6376 §3.4.3 (simple), §3.4.4 (relaxed).

Guarantees: how the body is cut into blocks changes nothing; what is kept between blocks is a few
octets and a count, so neither memory nor time depends on what a stranger sends (a body of nothing
but empty lines or white space included). A bare CR or LF is content like any other octet. The end
of the body ends its last line, so that trailing white space without a CRLF is dropped by `relaxed`,
and a missing CRLF is added by both.

Life cycle: `update` any number of times, then `digest` once; `covered_octets` and `total_octets`
are final after that.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

_CRLF: Final = b"\r\n"
_TAB_TO_SPACE: Final = bytes.maketrans(b"\t", b" ")
_EMPTY_LINES_AT_ONCE: Final = 8192
"""Empty lines held back are hashed in pieces of 16 KiB, whatever their number."""


class Canonicalization(StrEnum):
    """The body canonicalisations."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class BodyHash:
    """SHA-256 over the canonicalised body, or over its first `limit` octets (the `l=` tag)."""

    def __init__(self, canonicalization: Canonicalization | str, limit: int | None = None) -> None:
        """Raises ValueError for another canonicalisation or a negative limit."""
        self.canonicalization = Canonicalization(canonicalization)
        if limit is not None and limit < 0:
            raise ValueError("a body cannot be covered by a negative number of octets")
        self.limit = limit
        self.total_octets = 0
        """Octets of the canonicalised body so far; of all of it after `digest`."""
        self._relaxed = self.canonicalization is Canonicalization.RELAXED
        self._sha256 = hashlib.sha256()
        self._left = limit
        self._tail = b""
        # Empty lines count only if something follows them; the line end of the last line is the
        # first of them.
        self._line_ends = 0
        self._digest: bytes | None = None

    @property
    def covered_octets(self) -> int:
        """How many octets of the canonicalised body the hash covers."""
        return self.total_octets if self.limit is None else min(self.limit, self.total_octets)

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """The next octets of the body, as they stand on the wire (without dot-stuffing)."""
        if self._digest is not None:
            raise ValueError("the body has ended already")
        data = self._tail + bytes(block)
        if self._relaxed:
            data, self._tail = _relaxed(data)
        else:
            data, self._tail = _without_last_cr(data)
        body, line_ends = _split_line_ends(data)
        if body:
            self._end_lines(self._line_ends)
            self._hash(body)
            self._line_ends = line_ends
        else:
            self._line_ends += line_ends

    def digest(self) -> bytes:
        """The hash, 32 octets. The body ends here."""
        if self._digest is None:
            # White space alone is the end of the last line; before a bare CR it is content.
            if self._tail and not (self._relaxed and self._tail == b" "):
                self._end_lines(self._line_ends)
                self._hash(self._tail)
            # The last line is ended once; in `simple` an empty body is an empty line (§3.4.3).
            if self.total_octets or not self._relaxed:
                self._hash(_CRLF)
            self._digest = self._sha256.digest()
        return self._digest

    def _end_lines(self, count: int) -> None:
        while count > 0:
            now = min(count, _EMPTY_LINES_AT_ONCE)
            self._hash(_CRLF * now)
            count -= now

    def _hash(self, data: bytes) -> None:
        self.total_octets += len(data)
        if self._left is None:
            self._sha256.update(data)
        elif self._left > 0:
            self._sha256.update(data[: self._left])
            self._left = max(self._left - len(data), 0)


def _relaxed(data: bytes) -> tuple[bytes, bytes]:
    """`data` with its white space reduced, and the end of it that the next block may change."""
    if b"\t" in data:
        data = data.translate(_TAB_TO_SPACE)
    while b"  " in data:
        # Each round halves the longest run.
        data = data.replace(b"  ", b" ")
    data, tail = _without_last_cr(data)
    if data.endswith(b" "):
        data, tail = data[:-1], b" " + tail
    return data.replace(b" \r\n", _CRLF), tail


def _without_last_cr(data: bytes) -> tuple[bytes, bytes]:
    return (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")


def _split_line_ends(data: bytes) -> tuple[bytes, int]:
    """What stands before the CRLFs at the end, and how many those are."""
    end = len(data.rstrip(_CRLF))
    rest = data[end:]
    count = rest.count(_CRLF)
    if 2 * count == len(rest):
        return data[:end], count
    # Bare CR or LF among them: only the pairs at the very end count.
    count = 0
    while rest.endswith(_CRLF, 0, len(rest) - 2 * count):
        count += 1
    return data[: len(data) - 2 * count], count
