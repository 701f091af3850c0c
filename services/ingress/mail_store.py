"""Storing an accepted mail: all of its records, or none.

`250` is said only after JetStream acknowledged; everything else is 4xx. What was stored of a mail
that was not taken is removed: for certain failures its content, after a doubtful one (no
acknowledgement, or a session that was ended by force before it came) its records, whose content is
then left to the sweeper, since a record that did get through needs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from prometheus_client import Histogram

from gatepost.queue.v1.record_pb2 import ContentReference
from services.common.failpoint import Failpoint, reached
from services.common.jetstream import JetStream
from services.common.log import WARNING, event
from services.common.mail.reply import STORE_FULL, STORE_UNAVAILABLE, Reply
from services.common.queue.subjects import CONTENT_STREAM, QUEUE_STREAM, content_filter
from services.common.store import Full, Outgoing, StoreError, Unavailable
from services.ingress.cleaner import Cleaner
from services.ingress.spool import Spool

_log = logging.getLogger(__name__)

PUBLISH_SECONDS = Histogram(
    "gatepost_ingress_publish_seconds",
    "Time until all records of a mail were acknowledged.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


class NotStored(Exception):
    """The mail could not be stored; `reply` is what the client is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class MailStore:
    """Contents and records on their way into the streams."""

    def __init__(
        self, store: JetStream, cleaner: Cleaner, *, is_full: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._cleaner = cleaner
        self._is_full = is_full

    @property
    def obstacle(self) -> Reply | None:
        """Why storing has no chance just now, if that is known."""
        if not self._store.connected:
            return STORE_UNAVAILABLE
        return STORE_FULL if self._is_full() else None

    def open_spool(self, content_id: str) -> Spool:
        """Where a large content goes while it arrives."""
        return Spool(self._store, self._cleaner, content_id)

    async def store_content(self, spool: Spool, first_chunk: bytes) -> ContentReference:
        """Complete a content. Raises `NotStored`; the content is then removed."""
        try:
            reference = await spool.complete(first_chunk)
        except StoreError as error:
            await spool.discard()
            raise self._failure("content", error) from error
        except asyncio.CancelledError:
            await spool.discard()
            raise
        reached(Failpoint.AFTER_CONTENT)
        return reference

    async def publish(self, records: Sequence[Outgoing], *, content_id: str) -> None:
        """Publish all records of a mail. Raises `NotStored`."""
        reached(Failpoint.BEFORE_PUBLISH)
        try:
            with PUBLISH_SECONDS.time():
                await self._store.publish_batch(records)
        except StoreError as error:
            if isinstance(error, Unavailable):
                self._take_back(records)
            elif content_id:
                self._cleaner.purge(CONTENT_STREAM, content_filter(content_id))
            raise self._failure("records", error) from error
        except asyncio.CancelledError:
            self._take_back(records)
            raise
        reached(Failpoint.AFTER_PUBLISH)

    def _take_back(self, records: Sequence[Outgoing]) -> None:
        """Have records removed that may be stored, and of which the client hears nothing good."""
        for record in records:
            self._cleaner.purge(QUEUE_STREAM, record.subject, in_doubt=True)

    def _failure(self, what: str, error: StoreError) -> NotStored:
        event(_log, WARNING, "mail cannot be stored", part=what, reason=str(error))
        return NotStored(STORE_FULL if isinstance(error, Full) else STORE_UNAVAILABLE)
