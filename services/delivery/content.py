"""The content of a mail in hand: read from the record or from CONTENT, moved there, removed.

Guarantees: whoever reads `blocks` to the end has read exactly what was accepted, or got a
`ContentError`; one chunk is in memory at a time, and the next is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator
from typing import Final

from gatepost.queue.v1.record_pb2 import ContentReference, QueuedMessage
from services.common.jetstream import Conflict, JetStream, Outgoing
from services.common.queue.content import chunk_digest, content_digest
from services.common.queue.record import key_of
from services.common.queue.subjects import (
    CONTENT_STREAM,
    RecordKey,
    content_filter,
    content_subject,
)
from services.common.store import Stored
from services.delivery.batcher import Batcher
from services.delivery.dead import is_unfinished

_OWN_ID_OCTETS: Final = 8
"""Of the hash that tells the contents of a mail's records apart."""


class ContentError(Exception):
    """The content cannot be read, or is not what was accepted. The text is for operators."""


class Content:
    """The content of one record. `blocks` may be called any number of times."""

    def __init__(self, store: JetStream, record: QueuedMessage) -> None:
        self._store = store
        self._record = record
        self._is_inline = record.WhichOneof("content") == "inline_content"
        self.waited_s = 0.0
        """For how long whoever read it had to wait for the store so far."""
        self.is_missing = False
        """Whether somebody who read it found that it is not there."""

    @property
    def size(self) -> int:
        """Octets."""
        return self._record.size

    @property
    def inline(self) -> bytes | None:
        """All of it, if it stands in the record."""
        return self._record.inline_content if self._is_inline else None

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The content from its beginning; an inline one comes as one block.

        Raises `ContentError` or `StoreError`, at the latest before the last block.
        """
        if self._is_inline:
            yield self._record.inline_content
            return
        reference = self._record.content_reference
        digests: list[bytes] = []
        coming = asyncio.create_task(self._chunk(1))
        try:
            for number in range(1, reference.chunks + 1):
                chunk = await self._awaited(coming)
                if number < reference.chunks:
                    coming = asyncio.create_task(self._chunk(number + 1))
                digests.append(chunk_digest(chunk))
                if number == reference.chunks and content_digest(digests) != reference.sha256:
                    raise ContentError(f"content {reference.content_id} has been altered")
                yield chunk
        finally:
            coming.cancel()

    async def is_there(self) -> bool:
        """Whether there is anything to read. Raises `StoreError`."""
        return self._is_inline or await self._stored(1) is not None

    async def whole(self) -> bytes:
        """All of it at once, for contents that are known to be small. Raises as `blocks` does."""
        return b"".join([block async for block in self.blocks()])

    async def _awaited(self, coming: asyncio.Task[bytes]) -> bytes:
        began = time.monotonic()
        try:
            return await coming
        finally:
            self.waited_s += time.monotonic() - began

    async def _chunk(self, number: int) -> bytes:
        stored = await self._stored(number)
        if stored is None:
            self.is_missing = True
            raise ContentError(f"{self._subject(number)} is missing")
        return stored.data

    async def _stored(self, number: int) -> Stored | None:
        return await self._store.last(CONTENT_STREAM, self._subject(number))

    def _subject(self, number: int) -> str:
        return content_subject(self._record.content_reference.content_id, number)


async def move_to_stream(contents: Batcher, record: QueuedMessage) -> None:
    """Put an inline content into CONTENT and a reference into the record. Raises `StoreError`.

    The content gets an id of its own even if other records of the mail hold the same octets: so
    whoever finishes a record can remove its content without asking who else needs it.
    """
    if record.WhichOneof("content") != "inline_content":
        return
    content = record.inline_content
    digest = chunk_digest(content)
    content_id = _own_id(key_of(record))
    # Stored before, by an attempt that did not come to its end: the octets are the same.
    with contextlib.suppress(Conflict):
        await contents.publish(
            Outgoing(content_subject(content_id, 1), content), expected_last_sequence=0
        )
    record.content_reference.CopyFrom(
        ContentReference(content_id=content_id, chunks=1, sha256=content_digest([digest]))
    )


async def remove(store: JetStream, record: QueuedMessage) -> None:
    """Remove the content of a record that is gone from the queue, unless another one needs it that
    is in the queue or was set aside.

    Raises `StoreError`; what then stays is found by the sweeper.
    """
    if record.WhichOneof("content") != "content_reference":
        return
    content_id = record.content_reference.content_id
    if content_id != _own_id(key_of(record)) and await is_unfinished(store, record.message_id):
        return
    await store.purge(CONTENT_STREAM, content_filter(content_id))


def _own_id(key: RecordKey) -> str:
    digest = hashlib.sha256(key.destination.encode()).hexdigest()
    return f"{key.message_id}-d{digest[: 2 * _OWN_ID_OCTETS]}"
