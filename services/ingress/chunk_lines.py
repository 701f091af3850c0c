"""The content that BDAT brings (RFC 3030): counted octets, with lines that must be lines all the
same.

The client says how long a chunk is, so nothing in it can end the content; but what leaves us leaves
as lines, so a bare CR, a bare LF or NUL is refused here as it is after DATA. A pure parser: at most
two octets are held back between blocks. A content whose last line has no end gets one, as DATA
would have given it.
"""

from __future__ import annotations

from typing import Final

from services.common.mail.reply import Reply
from services.ingress.line_ends import line_end_fault, with_crlf

_CRLF: Final = b"\r\n"


class ChunkLines:
    """One content. `mend_line_ends` makes a bare LF a CRLF instead of a fault."""

    __slots__ = ("_held", "_last", "_mend", "fault")

    def __init__(self, *, mend_line_ends: bool = False) -> None:
        self.fault: Reply | None = None
        """The first thing that is wrong with the content."""
        self._mend = mend_line_ends
        self._held = b""
        self._last = _CRLF  # an empty content needs no line end

    def feed(self, block: bytes) -> bytes:
        """The next octets; returns those that are certain."""
        data = self._held + block
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._content(data)

    def end(self) -> bytes:
        """The content is over: what was held back, and the end of its last line."""
        rest = self._content(self._held)
        self._held = b""
        return rest if self._last.endswith(_CRLF) else rest + _CRLF

    def _content(self, data: bytes) -> bytes:
        if self._mend:
            data = with_crlf(data)
        if self.fault is None:
            self.fault = line_end_fault(data)
        self._last = (self._last + data[-2:])[-2:]
        return data
