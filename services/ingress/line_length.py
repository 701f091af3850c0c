"""Whether the lines of a content are as short as the operator wants them (pure).

RFC 5321 §4.5.3.1.6: 998 octets and CRLF. Mail in order has longer ones too often to refuse it for
that alone, so there is a limit only where one is set. Nothing breaks a long line: that would change
what was signed. The work is in steps of the limit, not of the lines.
"""

from __future__ import annotations

from typing import Final

from services.common.mail.reply import Reply

LONG_LINE: Final = Reply(550, "5.6.0", "A line of the message is too long")


class LineLength:
    """The lines of one content. `limit`: octets without the CRLF."""

    __slots__ = ("_begun", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = 0
        """Octets so far of the line whose end has not come."""

    def fits(self, block: bytes) -> bool:
        """Whether no line is too long, with the next octets; not asked again once one is."""
        start, begun = 0, self._begun
        # The LF stands behind at most `limit` octets and a CR.
        while (bound := start + self._limit + 2 - begun) <= len(block):
            end = block.rfind(b"\n", start, bound)
            if end < 0:
                return False
            start, begun = end + 1, 0
        end = block.rfind(b"\n", start)
        self._begun = begun + len(block) - start if end < 0 else len(block) - end - 1
        return True
