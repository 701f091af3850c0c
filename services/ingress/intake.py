"""One content on its way in: measured, split into header and body, hashed, kept or stored.

Memory does not grow with the content. The header is kept (up to its limit), and the content up to
the inline limit; what comes beyond goes to the `Spool` in chunks while it arrives. Content that is
refused is read to its end, since the client listens no earlier (RFC 5321 §4.2.5), and dropped as it
comes.

Refuses: content above the size limit (RFC 1870 §6.3), a header above its limit, more `Received`
fields than a mail in order has (RFC 5321 §6.3), lines above a limit that is set, content for which
there is no room, and content that cannot be stored just now.

Life cycle: `add` for each block, `store` whenever `is_full`; at the end `finish`, which gives a
`Content` or a reply, or, when the client is gone, `discard`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gatepost.policy.v1.policy_pb2 import BodyDigest
from services.common.log import WARNING, event
from services.common.mail.message import HeaderBlock, HeaderError, parse_header
from services.common.mail.reply import (
    HEADER_TOO_BIG,
    MESSAGE_TOO_BIG,
    STORE_FULL,
    STORE_UNAVAILABLE,
    TOO_MANY_HOPS,
    Reply,
)
from services.common.queue.content import MAX_INLINE_OCTETS
from services.common.store import Full, StoreError
from services.ingress.body_digests import BodyDigests
from services.ingress.capacity import Reservation
from services.ingress.header_fields import is_stray
from services.ingress.line_length import LONG_LINE, LineLength
from services.ingress.pieces import Pieces
from services.ingress.replies import TOO_MUCH_MAIL
from services.ingress.spool import Spool

_log = logging.getLogger(__name__)

CHUNK_OCTETS: Final = 256 * 1024
"""A session holds two of them at most: one being published, one being collected."""

_CRLF: Final = b"\r\n"
_HEADER_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """Limits of one content."""

    octets: int  # 0: none
    header_octets: int
    received_fields: int
    line_octets: int = 0  # 0: any


class Content:
    """A content that came in whole."""

    __slots__ = ("_room", "_spool", "digests", "front", "header", "size", "spooled_octets")

    def __init__(
        self,
        header: HeaderBlock,
        front: bytes,
        *,
        spool: Spool | None,
        digests: Sequence[BodyDigest],
        size: int,
        room: Reservation,
    ) -> None:
        self.header = header
        self.front = front
        """The empty line, if there is one, and the body, or as much of it as is not in the spool.
        """
        self.digests = digests
        self.size = size
        """Octets as received, without dot-stuffing (RFC 1870 §5)."""
        self.spooled_octets = spool.octets if spool else 0
        self._spool = spool
        self._room = room

    def take_spool(self) -> Spool | None:
        """Where the rest of a large content is; from now on that is the caller's to look after."""
        spool, self._spool = self._spool, None
        return spool

    async def discard(self) -> None:
        """Have what is in the spool removed, unless somebody took it. Never raises."""
        self._room.release()
        spool = self.take_spool()
        if spool is not None:
            await spool.discard()


class Intake:
    """One content. `open_spool` is called at most once, when the content turns out to be large."""

    def __init__(
        self, limits: IntakeLimits, open_spool: Callable[[], Spool], room: Reservation
    ) -> None:
        self.size = 0
        self.refusal: Reply | None = None
        """Why the content will be refused at its end, as soon as that is known."""
        self._limits = limits
        self._open_spool = open_spool
        self._room = room
        self._lines = LineLength(limits.line_octets) if limits.line_octets else None
        self._head = bytearray()
        self._header: HeaderBlock | None = None
        self._digests: BodyDigests | None = None
        self._header_octets = 0
        self._separator = b""
        self._front = Pieces()
        self._pending = Pieces()
        self._is_large = False
        self._spool: Spool | None = None

    def add(self, data: bytes) -> None:
        """The next octets of the content."""
        self.size += len(data)
        if self.refusal is not None:
            return
        if self._limits.octets and self.size > self._limits.octets:
            self.refuse(MESSAGE_TOO_BIG)
            return
        if self._lines is not None and not self._lines.fits(data):
            self.refuse(LONG_LINE)
            return
        if self._header is None:
            data = self._add_to_header(data)
        if data and self.refusal is None:
            self._add_to_body(data)
        if not self._room.hold(self._octets_in_memory()):
            self.refuse(TOO_MUCH_MAIL)

    def skip(self, octets: int) -> None:
        """So many octets of a content that is refused."""
        self.size += octets

    @property
    def is_full(self) -> bool:
        """Whether `store` should be called before more is added."""
        return len(self._pending) >= CHUNK_OCTETS

    def refuse(self, reply: Reply) -> None:
        """Drop what there is and what will come; the first reason stays."""
        self.refusal = self.refusal or reply
        self._room.release()
        self._head.clear()
        self._front.clear()
        self._pending.clear()

    async def store(self) -> None:
        """Store what was collected. Never raises: what cannot be stored is refused."""
        if self.refusal is not None or not self._pending:
            return
        if self._spool is None:
            if not await self._room.enter_large():
                self.refuse(TOO_MUCH_MAIL)
                return
            self._spool = self._open_spool()
        chunk = self._pending.take()
        try:
            await self._spool.append(chunk)
        except StoreError as error:
            event(_log, WARNING, "content cannot be stored", reason=str(error))
            self.refuse(STORE_FULL if isinstance(error, Full) else STORE_UNAVAILABLE)

    async def finish(self) -> Content | Reply:
        """The content has ended: what came in, or why it is refused."""
        if self._header is None and self.refusal is None:
            # No empty line: all of it is header.
            self._header_complete(bytes(self._head), separator=b"")
        await self.store()
        if self.refusal is not None or self._header is None or self._digests is None:
            await self.discard()
            return self.refusal or HEADER_TOO_BIG
        spool, self._spool = self._spool, None
        return Content(
            self._header,
            self._separator + self._front.take(),
            spool=spool,
            digests=self._digests.results(),
            size=self.size,
            room=self._room,
        )

    async def discard(self) -> None:
        """Have everything that was stored removed. Never raises."""
        self._front.clear()
        self._pending.clear()
        self._room.release()
        if self._spool is not None:
            await self._spool.discard()
            self._spool = None

    def _octets_in_memory(self) -> int:
        """About what is kept: of a large content one chunk more, which is being published."""
        publishing = CHUNK_OCTETS if self._spool is not None else 0
        body = len(self._front) + len(self._pending) + publishing
        return len(self._head) + self._header_octets + body

    def _add_to_header(self, data: bytes) -> bytes:
        """Collect the header; returns what belongs to the body."""
        known = len(self._head)
        self._head += data
        if self._head.startswith(_CRLF):
            body = bytes(self._head[len(_CRLF) :])
            self._header_complete(b"", separator=_CRLF)
            return body
        # From a little before the new octets: looking at all of them again for each block would
        # cost the square of the header's size when a client sends it octet by octet.
        end = self._head.find(_HEADER_END, max(0, known - len(_HEADER_END) + 1))
        if end < 0:
            if len(self._head) > self._limits.header_octets:
                self.refuse(HEADER_TOO_BIG)
            return b""
        body = bytes(self._head[end + len(_HEADER_END) :])
        self._header_complete(bytes(self._head[: end + len(_CRLF)]), separator=_CRLF)
        return body

    def _header_complete(self, octets: bytes, *, separator: bytes) -> None:
        try:
            header = parse_header(octets, max_octets=self._limits.header_octets)
        except HeaderError as error:
            self.refuse(error.reply)
            return
        if header.count("Received") > self._limits.received_fields:
            self.refuse(TOO_MANY_HOPS)
            return
        self._head.clear()
        # Here, so that what is judged is what is stored.
        if header.fields and is_stray(header.fields[0]):
            header = header.without(is_stray)
        self._header = header
        self._digests = BodyDigests(header)
        self._header_octets = len(octets)
        self._separator = separator

    def _add_to_body(self, data: bytes) -> None:
        if self._digests is not None:
            self._digests.update(data)
        octets = self._header_octets + len(self._front) + len(data)
        if not self._is_large and octets > MAX_INLINE_OCTETS:
            # From now on everything goes to the spool, and what came so far goes first.
            self._is_large = True
            self._pending, self._front = self._front, self._pending
        if self._is_large:
            self._pending.add(data)
        else:
            self._front.add(data)
