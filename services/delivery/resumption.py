"""Gets the mail of a destination going again once its suspension has ended.

Mail that met the suspension waits with that as its reason; it is made due, a page at a time. This
is done twice: other replicas notice the end of a suspension only when they read the shared
knowledge again, and put back what they are handed until then.

Best effort, in the background: what it does not reach comes due by itself within
`SUSPENDED_PAUSE`. Mail that waits for another reason is left to its time.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC
from typing import Final

from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, event
from services.common.queue.subjects import QUEUE_STREAM, State, record_filter
from services.common.store import Stored
from services.delivery.destinations import NOTICED_S, Destinations
from services.delivery.operations import NotPossible, Operations
from services.delivery.queue_entry import entry_of
from services.delivery.worker import SUSPENDED

PAGE: Final = 100
MAX_PAGES: Final = 1000

_log = logging.getLogger(__name__)


class Resumption:
    """Makes due what waits because of a suspension that has ended."""

    def __init__(
        self, store: JetStream, operations: Operations, destinations: Destinations
    ) -> None:
        self._store = store
        self._operations = operations
        self._destinations = destinations
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, destination: str) -> None:
        """Get the mail for a destination going, without waiting for it."""
        task = asyncio.create_task(self._run(destination), name="resume")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, destination: str) -> None:
        try:
            count = await self.make_due(destination)
            await asyncio.sleep(NOTICED_S)
            count += await self.make_due(destination)
        except StoreError as error:
            event(_log, INFO, "mail waits on", destination=destination, reason=str(error))
        else:
            event(_log, INFO, "mail goes on", destination=destination, records=count)

    async def make_due(self, destination: str) -> int:
        """Make due what waits because of a suspension; how many. Raises `StoreError`."""
        count, after = 0, 0
        waiting = record_filter(state=State.DEFERRED, destination=destination)
        for _ in range(MAX_PAGES):
            page = await self._store.page(QUEUE_STREAM, waiting, after_sequence=after, count=PAGE)
            for stored in page:
                if self._destinations.suspension(destination) is not None:
                    return count  # suspended again
                count += await self._made_due(stored)
            if len(page) < PAGE:
                break
            after = page[-1].sequence
        return count

    async def _made_due(self, stored: Stored) -> bool:
        entry = entry_of(stored)
        if entry.wait_reason != SUSPENDED:
            return False
        if entry.due_time.ToDatetime(tzinfo=UTC) <= stored.time:
            return False  # made due before: it comes by again until the server has moved it
        try:
            await self._operations.make_due(stored)
        except NotPossible:
            return False  # it moved on by itself
        return True
