"""Removes from the store what belongs to no mail: contents that were abandoned, records in doubt.

A record is in doubt when its publish was not acknowledged: the client was told to try again, so one
that was stored after all would be a second copy. It is purged as soon as NATS answers; delivery may
have been faster, which is why the ledger counts such mail as unknown. What cannot be purged here is
left to delivery's sweeper. One long-lived task does all of it, so that no session waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, NamedTuple

from prometheus_client import Counter

from services.common.jetstream import JetStream
from services.common.log import WARNING, event
from services.common.queue.subjects import QUEUE_STREAM
from services.common.store import StoreError, Unavailable

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Purges that wait for NATS. One is 200 octets; what is beyond is left to the sweeper."""

RETRY_INTERVAL_S: Final = 1.0

LOOKS_IN_DOUBT: Final = 2
LOOK_INTERVAL_S: Final = 1.0
"""The server works on publishes and purges side by side: after a hang a purge may come first."""

FINISH_S: Final = 3.0
"""What a stopping process waits for; a purge takes milliseconds when NATS answers."""

PURGED = Counter(
    "gatepost_ingress_purges_total",
    "Subjects of abandoned contents and of records in doubt, by what came of their removal.",
    ["result"],  # removed, absent, given_up
)


class _Purge(NamedTuple):
    stream: str
    subject: str
    looks: int
    """How often to look again."""
    due: float = 0.0


class Cleaner:
    """A queue of subjects to purge. `run` is a long-lived task."""

    def __init__(self, store: JetStream) -> None:
        self._store = store
        self._waiting: asyncio.Queue[_Purge] = asyncio.Queue(MAX_WAITING)

    def purge(self, stream: str, subject: str, *, in_doubt: bool = False) -> None:
        """Have every message on a subject removed, soon. Never raises, never waits.

        `in_doubt`: a publish may still be under way, so the subject is looked at again.
        """
        self._put(_Purge(stream, subject, looks=LOOKS_IN_DOUBT if in_doubt else 0))

    async def run(self) -> None:
        """Purge what is asked for, until cancelled. While NATS is away everything waits."""
        while True:
            purge = await self._waiting.get()
            await asyncio.sleep(max(0.0, purge.due - time.monotonic()))
            await self._carry_out(purge)
            self._waiting.task_done()

    async def finish(self) -> None:
        """Return when everything that was asked for is purged, or soon."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self.drained()
        except TimeoutError:
            event(_log, WARNING, "left to the sweeper", subjects=self._waiting.qsize())

    async def drained(self) -> None:
        """Return when everything that was asked for is purged."""
        await self._waiting.join()

    def _put(self, purge: _Purge) -> None:
        try:
            self._waiting.put_nowait(purge)
        except asyncio.QueueFull:
            self._give_up(purge, "too many wait already")

    async def _carry_out(self, purge: _Purge) -> None:
        while True:
            try:
                count = await self._removed(purge)
            except Unavailable:
                await asyncio.sleep(RETRY_INTERVAL_S)
            except StoreError as error:
                self._give_up(purge, str(error))
                return
            else:
                PURGED.labels("removed" if count else "absent").inc()
                if purge.looks:
                    due = time.monotonic() + LOOK_INTERVAL_S
                    self._put(purge._replace(looks=purge.looks - 1, due=due))
                return

    async def _removed(self, purge: _Purge) -> int:
        """How many messages were removed. Raises `StoreError`."""
        if purge.stream != QUEUE_STREAM:
            return await self._store.purge(purge.stream, purge.subject)
        # A purge among messages that are in hand makes nats-server 2.15 forget others that are in
        # hand too: it moves the consumer's floor past them. Removing one by its number does not.
        found = await self._store.last(purge.stream, purge.subject)
        if found is None:
            return 0
        await self._store.delete(purge.stream, found.sequence)
        return 1

    def _give_up(self, purge: _Purge, reason: str) -> None:
        PURGED.labels("given_up").inc()
        event(
            _log,
            WARNING,
            "cannot remove what belongs to no mail, the sweeper will",
            stream=purge.stream,
            subject=purge.subject,
            reason=reason,
        )
