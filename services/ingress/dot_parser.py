"""The content after DATA: where it ends, and its dots undone (RFC 5321 §4.1.1.4, §4.5.2).

A pure parser, octets in and octets out, in blocks of any size. Only CRLF.CRLF ends the content (of
which the first CRLF may be that of the DATA command itself); no mixture with bare CR or LF does, so
there is one reading of where a mail ends. Up to four octets are held back between blocks, so it
makes no difference how the content is cut.

Life cycle: `feed`, or `skip` once nobody wants the content, until `ended`; `rest` is then what came
after the end: further commands.
"""

from __future__ import annotations

from typing import Final

from services.common.mail.reply import Reply
from services.ingress.line_ends import line_end_fault, with_crlf

_END: Final = b"\r\n.\r\n"
_CRLF: Final = b"\r\n"


class DotParser:
    """One content. `mend_line_ends` makes bare LF a line end like CRLF instead of a fault."""

    __slots__ = ("_held", "_mend", "_virtual", "ended", "fault", "rest")

    def __init__(self, *, mend_line_ends: bool = False) -> None:
        self.ended = False
        self.rest = b""
        self.fault: Reply | None = None
        """The first thing that is wrong with the content. It goes on to its real end."""
        self._mend = mend_line_ends
        # The line end of the DATA command: a dot right after it ends an empty content.
        self._held = _CRLF
        self._virtual = True

    def feed(self, block: bytes) -> bytes:
        """The next octets from the client; returns those of the content that are certain."""
        data = self._before_end(block)
        return self._content(data) if data else b""

    def skip(self, block: bytes) -> None:
        """The next octets of a content that is refused: only its end is looked for."""
        self._before_end(block)

    def _before_end(self, block: bytes) -> bytes:
        if self.ended:
            raise ValueError("the content has ended")
        data = self._held + block
        end = data.find(_END)
        if end >= 0:
            self.ended = True
            self.rest = data[end + len(_END) :]
            self._held = b""
            data = data[: end + len(_CRLF)]
        else:
            held = self._undecided(data)
            data, self._held = data[: len(data) - held], data[len(data) - held :]
        return data

    def _undecided(self, data: bytes) -> int:
        """How many octets at the end mean one thing or another, depending on the next block."""
        for length in (4, 3, 2, 1):
            if data.endswith(_END[:length]):
                return length
        if self._mend:
            # After a bare LF a dot is at the start of a line too.
            return 2 if data.endswith(b"\n.") else 1 if data.endswith(b"\n") else 0
        return 0

    def _content(self, data: bytes) -> bytes:
        if self._mend:
            data = data.replace(b"\n.", b"\n")
            data = with_crlf(data)
        else:
            data = data.replace(b"\r\n.", _CRLF)
        if self.fault is None:
            self.fault = line_end_fault(data)
        if self._virtual:
            self._virtual = False
            return data[len(_CRLF) :]
        return data
