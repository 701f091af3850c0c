"""Reading a content from the client into an `Intake`, by DATA or BDAT.

Not an octet more than the content is taken, and never less: where the position in the stream is not
known any more, the session ends (`SessionEnd`), since content taken for commands is how mail is
smuggled. The content must come at some rate, on average; a client that may be silent for minutes
between octets could hold its place for days.
"""

from __future__ import annotations

import time
from typing import Final

from services.ingress.chunk_lines import ChunkLines
from services.ingress.dot_parser import DotParser
from services.ingress.intake import Intake
from services.ingress.replies import TOO_SLOW
from services.ingress.wire import SessionEnd, Wire

RATE_GRACE_S: Final = 60.0
"""The rate of a content is looked at after this time."""


class Receiver:
    """The transfer of one content. `min_rate`: octets per second."""

    def __init__(self, wire: Wire, intake: Intake, *, min_rate: int) -> None:
        self._wire = wire
        self._intake = intake
        self._min_rate = min_rate
        self._waited_s = 0.0

    async def until_dot(self, parser: DotParser) -> None:
        """Read up to the final dot."""
        intake = self._intake
        while not parser.ended:
            block = await self._block()
            if intake.refusal is not None:
                parser.skip(block)
                intake.skip(len(block))
                continue
            intake.add(parser.feed(block))
            if parser.fault is not None:
                intake.refuse(parser.fault)
            if intake.is_full:
                await intake.store()
        self._wire.unread(parser.rest)

    async def chunk(self, lines: ChunkLines, octets: int) -> None:
        """Read a chunk of so many octets."""
        intake = self._intake
        while octets:
            block = await self._block(octets)
            octets -= len(block)
            intake.add(lines.feed(block))
            if lines.fault is not None:
                intake.refuse(lines.fault)
            if intake.is_full:
                await intake.store()

    async def _block(self, most: int | None = None) -> bytes:
        started = time.monotonic()
        block = await self._wire.block(most)
        # Only the client's time counts: a large content may wait for its turn here.
        self._waited_s += time.monotonic() - started
        if self._waited_s > RATE_GRACE_S and self._intake.size < self._waited_s * self._min_rate:
            raise SessionEnd("slow", TOO_SLOW)
        return block


async def skip(wire: Wire, octets: int) -> None:
    """Read and drop a chunk that nobody wants."""
    while octets:
        octets -= len(await wire.block(octets))
