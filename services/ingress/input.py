"""What a client sends, as lines and as blocks: a stream reader that can also give back and forget.

asyncio's `StreamReader` (which aiosmtpd's protocol feeds) lacks three things that SMTP needs: to
tell whether another command is here already (RFC 2920: replies are sent together), to take back
what came after the end of a content, and to drop what was sent before a TLS handshake (RFC 3207
§4.2).
"""

from __future__ import annotations

import asyncio
from typing import Final

BUFFER_OCTETS: Final = 16 * 1024
"""The client is made to wait when twice as much is unread."""

MAX_DISCARD_OCTETS: Final = 1024 * 1024
"""A line longer than this never ends."""


class LineTooLong(Exception):
    """A line beyond its limit. It was read to its end, unless it `is_endless`."""

    def __init__(self, *, is_endless: bool) -> None:
        super().__init__()
        self.is_endless = is_endless


class EndOfInput(Exception):
    """The client sends no more."""


class Input(asyncio.StreamReader):
    """The octets of one client."""

    # asyncio's own; StreamReader has no public way to look at what is there.
    _buffer: bytearray
    _eof: bool
    _transport: asyncio.BaseTransport | None

    @property
    def has_line(self) -> bool:
        """Whether a line can be taken without waiting."""
        return b"\n" in self._buffer

    def waiting_line(self) -> bytes:
        """The next line with its LF, without taking it; nothing if its end is not here."""
        return bytes(self._buffer[: self._buffer.find(b"\n") + 1])

    async def line(self, limit: int) -> bytes:
        """The next line up to and with its LF. Raises `LineTooLong`, `EndOfInput`."""
        buffer = self._buffer
        searched = discarded = 0
        while (end := buffer.find(b"\n", searched)) < 0:
            if len(buffer) > limit:
                discarded += len(buffer)
                buffer.clear()
                self._resume()
                if discarded > MAX_DISCARD_OCTETS:
                    raise LineTooLong(is_endless=True)
            searched = len(buffer)
            await self._more()
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._resume()
        if discarded or len(line) > limit:
            raise LineTooLong(is_endless=False)
        return line

    async def block(self, most: int | None = None) -> bytes:
        """Whatever is there, at least one octet, and no more than `most`. Raises `EndOfInput`."""
        buffer = self._buffer
        while not buffer:
            await self._more()
        if most is None or most >= len(buffer):
            block = bytes(buffer)
            buffer.clear()
        else:
            block = bytes(buffer[:most])
            del buffer[:most]
        self._resume()
        return block

    def unread(self, data: bytes) -> None:
        """Put back what was read and belongs to what comes next."""
        self._buffer[:0] = data

    def forget(self) -> None:
        """Drop everything that came so far."""
        self._buffer.clear()
        self._resume()

    def rebind(self, transport: asyncio.BaseTransport) -> None:
        """Go on with another transport: the TLS layer over the one before."""
        self._transport = transport

    async def _more(self) -> None:
        error = self.exception()
        if error is not None:
            raise error
        if self._eof:
            raise EndOfInput
        await self._wait_for_data("input")  # type: ignore[attr-defined]

    def _resume(self) -> None:
        self._maybe_resume_transport()  # type: ignore[attr-defined]
