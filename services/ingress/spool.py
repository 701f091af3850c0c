"""The part of a large content that is stored while the rest still comes in.

Chunks 2, 3, … of the content go to the CONTENT stream as they fill up, one publish under way while
the next chunk is collected. Chunk 1 holds the header with the trace fields, which are known only
after the verdict, so it is stored last; a content without chunk 1 is one that was never accepted.

Life cycle: `append` for each chunk → `complete` (then a record may refer to the content) or,
whatever happened before, `discard` (everything stored is removed in the background).
"""

from __future__ import annotations

import asyncio
import contextlib

from gatepost.queue.v1.record_pb2 import ContentReference
from services.common.jetstream import JetStream
from services.common.queue.content import chunk_digest, content_digest
from services.common.queue.subjects import CONTENT_STREAM, content_filter, content_subject
from services.common.store import Outgoing, StoreError, Unavailable
from services.ingress.cleaner import Cleaner


class Spool:
    """One content in the CONTENT stream."""

    def __init__(self, store: JetStream, cleaner: Cleaner, content_id: str) -> None:
        self._store = store
        self._cleaner = cleaner
        self._content_id = content_id
        self._digests = [b""]  # chunk 1 comes last
        self.octets = 0
        """What was appended."""
        self._publishing: asyncio.Task[int] | None = None
        self._in_doubt = False

    async def append(self, chunk: bytes) -> None:
        """Store the next chunk. Returns when the one before is stored. Raises `StoreError`."""
        await self._published()
        self._digests.append(chunk_digest(chunk))
        self.octets += len(chunk)
        self._start(len(self._digests), chunk)

    async def complete(self, first_chunk: bytes) -> ContentReference:
        """Store chunk 1 and wait until all chunks are stored. Raises `StoreError`."""
        await self._published()
        self._digests[0] = chunk_digest(first_chunk)
        self._start(1, first_chunk)
        await self._published()
        return ContentReference(
            content_id=self._content_id,
            chunks=len(self._digests),
            sha256=content_digest(self._digests),
        )

    async def discard(self) -> None:
        """Have all chunks removed. Never raises."""
        # A publish that is cancelled may still be stored, after the purge; its end is awaited.
        with contextlib.suppress(StoreError):
            await self._published()
        self._cleaner.purge(
            CONTENT_STREAM, content_filter(self._content_id), in_doubt=self._in_doubt
        )

    def _start(self, number: int, chunk: bytes) -> None:
        message = Outgoing(content_subject(self._content_id, number), chunk)
        self._publishing = asyncio.create_task(self._store.publish(message), name="spool")

    async def _published(self) -> None:
        """Wait for the publish that is under way."""
        if self._publishing is None:
            return
        publishing, self._publishing = self._publishing, None
        try:
            # Shielded: a session that is ended by force leaves no publish of unknown outcome.
            await asyncio.shield(publishing)
        except Unavailable:
            self._in_doubt = True
            raise
        except asyncio.CancelledError:
            self._publishing = publishing
            raise
