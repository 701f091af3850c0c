"""The form of content on the wire: RFC 5321 §2.3.8 (line ends), §4.5.2 (dots).

Guarantees: whatever the content is, what leaves us has no CR without an LF and no LF without a CR,
so that no next hop can find the end of a message where we did not put it. How the content is cut
into blocks changes nothing.
"""

from __future__ import annotations

import re
from typing import Final

END_OF_DATA: Final = b".\r\n"

_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEnds:
    """Makes every line end CRLF: a bare CR or LF, which must not be sent, becomes one."""

    def __init__(self) -> None:
        self._cr = False

    def normalised(self, block: bytes) -> bytes:
        """The next block. A CR at its end is held back until what follows is known."""
        data = b"\r" + block if self._cr else block
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        pairs = data.count(b"\r\n")
        if data.count(b"\n") == pairs and data.count(b"\r") == pairs:
            return data
        return _BARE.sub(b"\r\n", data)

    def end(self) -> bytes:
        """What was held back."""
        held, self._cr = self._cr, False
        return b"\r\n" if held else b""


class DotStuffing:
    """Doubles the dot at the beginning of a line, and ends the content as DATA wants it."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the content begins at the beginning of a line

    def stuffed(self, block: bytes) -> bytes:
        """The next block; line ends are CRLF already."""
        if not block:
            return b""
        # Two octets of before decide whether the block begins a line.
        kept = len(self._tail)
        joined = self._tail + block
        self._tail = joined[-2:]
        return joined.replace(b"\r\n.", b"\r\n..")[kept:]

    def end(self) -> bytes:
        """The line that ends the content, after a line end if that is missing."""
        return END_OF_DATA if self._tail == b"\r\n" else b"\r\n" + END_OF_DATA
