"""What slipped through is found: records whose schedule never fired or that the server lost sight
of, contents that nobody refers to; suppressions that have expired.

A schedule that comes due while storage is full is not fired later, and a crash between two steps
can leave a content behind. One replica at a time looks (it holds a lease), slowly: a page of
records now and then costs nothing, and mail that is found this way was already lost sight of.

Guarantees: only a record that is overdue by the server's clock is touched, and only if it has not
moved; a content is removed only if it is old and no record of its mail is in the queue or was set
aside.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter, Gauge

from services.common.jetstream import Conflict, JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.ids import is_message_id
from services.common.queue.record import UnreadableRecord, accept_time, deferred, read_record
from services.common.queue.subjects import (
    CONTENT_STREAM,
    QUEUE_STREAM,
    State,
    content_filter,
    parse_record_subject,
    record_filter,
)
from services.common.store import Outgoing, Stored
from services.delivery import waiting_list
from services.delivery.dead import is_unfinished, mails_set_aside
from services.delivery.stranded import rescue
from services.delivery.suppressions import Suppressions

PAGE: Final = 100
PAUSE_S: Final = 0.5
"""Between pages, each of which costs the server about 25 ms."""

ROUND_S: Final = 60.0
OVERDUE: Final = timedelta(minutes=2)
"""Schedules fire within a second, or within a minute if hundreds of thousands are due at once."""

CONTENT_EVERY_S: Final = 3600.0
CONTENT_AGE: Final = timedelta(hours=6)
"""Since its newest chunk was stored. A client that is still sending has stored one long since."""

LEASE_SUBJECT: Final = "$KV.destinations.lease.sweeper"
LEASE_STREAM: Final = "KV_destinations"
LEASE_S: Final = 180.0

OVERDUE_FOUND = Counter(
    "gatepost_delivery_overdue_records_total", "Deferred records that had to be made due by hand."
)
ORPHANS = Counter(
    "gatepost_delivery_orphaned_contents_total", "Contents removed because nothing refers to them."
)
OLDEST = Gauge(
    "gatepost_delivery_oldest_deferred_timestamp_seconds",
    "When the oldest mail that waits was accepted, as of the last round; 0: none waits.",
)

_OWN_SUFFIX: Final = re.compile(r"-d[0-9a-f]{16}$")

_log = logging.getLogger(__name__)


class Sweeper:
    """Rounds through the queue and the contents."""

    def __init__(
        self,
        store: JetStream,
        suppressions: Suppressions,
        *,
        owner: str,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`owner` names this process among the replicas."""
        self._store = store
        self._suppressions = suppressions
        self._owner = owner.encode()
        self._pause_s = pause_s
        self._seen_sequence = 0
        self._seen_at = 0.0
        self._server_time: datetime | None = None
        self._taken_at = 0.0
        self._contents_at = time.monotonic()

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                if await self.take_lease():
                    await self.sweep_overdue()
                    await rescue(self._store, self._now())
                    if time.monotonic() - self._contents_at >= CONTENT_EVERY_S:
                        self._contents_at = time.monotonic()
                        await self.sweep_contents()
                        await self._suppressions.expire(pause_s=self._pause_s)
            except StoreError as error:
                event(_log, INFO, "not swept", reason=str(error))

    # --- who sweeps -----------------------------------------------------------------------------

    async def take_lease(self) -> bool:
        """Take or renew the lease, and learn what time the server has. Raises `StoreError`."""
        last = await self._store.last(LEASE_STREAM, LEASE_SUBJECT)
        if last is not None and last.data != self._owner and not await self._is_over(last):
            return False
        try:
            await self._store.publish(
                Outgoing(LEASE_SUBJECT, self._owner),
                expected_last_sequence=last.sequence if last is not None else 0,
            )
        except Conflict:
            return False
        taken = await self._store.last(LEASE_STREAM, LEASE_SUBJECT)
        if taken is None or taken.data != self._owner:
            return False
        self._server_time, self._taken_at = taken.time, time.monotonic()
        return True

    async def _is_over(self, last: Stored) -> bool:
        """Whether another's lease was not renewed for long: seen by us, so no clock matters."""
        if last.sequence != self._seen_sequence:
            self._seen_sequence, self._seen_at = last.sequence, time.monotonic()
        return time.monotonic() - self._seen_at > LEASE_S

    def _now(self) -> datetime:
        """The server's time. Ours may be wrong, and then everything would look overdue."""
        if self._server_time is None:
            raise RuntimeError("no lease was taken")
        return self._server_time + timedelta(seconds=time.monotonic() - self._taken_at)

    # --- records --------------------------------------------------------------------------------

    async def sweep_overdue(self) -> int:
        """Make overdue records due again; how many there were. Raises `StoreError`."""
        count, oldest = 0, 0.0
        destinations = collections.Counter[str]()
        async for stored in self._deferred():
            _, key = parse_record_subject(stored.subject)
            destinations[key.destination] += 1
            try:
                record = read_record(stored.data, key)
            except UnreadableRecord:
                continue  # it is set aside when it comes due
            accepted = accept_time(record).timestamp()
            oldest = min(oldest or accepted, accepted)
            if record.due_time.ToDatetime(tzinfo=self._now().tzinfo) > self._now() - OVERDUE:
                continue
            try:
                await self._store.publish(
                    deferred(record, self._now()), expected_last_sequence=stored.sequence
                )
            except Conflict:
                continue
            count += 1
            OVERDUE_FOUND.inc()
            event(_log, WARNING, "overdue record made due", message=key.message_id)
        OLDEST.set(oldest)
        waiting_list.tell(destinations)
        return count

    async def _deferred(self) -> AsyncIterator[Stored]:
        after, subjects = 0, record_filter(state=State.DEFERRED)
        while True:
            page = await self._store.page(QUEUE_STREAM, subjects, after_sequence=after, count=PAGE)
            for stored in page:
                yield stored
            if len(page) < PAGE:
                return
            after = page[-1].sequence
            await asyncio.sleep(self._pause_s)
            if time.monotonic() - self._taken_at > LEASE_S / 2 and not await self.take_lease():
                return

    # --- contents -------------------------------------------------------------------------------

    async def sweep_contents(self, *, age: timedelta = CONTENT_AGE) -> int:
        """Remove contents that nobody refers to; how many. Raises `StoreError`."""
        count, offset = 0, 0
        while subjects := await self._store.subjects(CONTENT_STREAM, "content.>", offset=offset):
            offset += len(subjects)
            newest = _newest_chunks(subjects)
            for content_id in await self._without_record(set(newest)):
                if await self._is_orphan(content_id, newest[content_id], age):
                    offset -= await self._store.purge(CONTENT_STREAM, content_filter(content_id))
                    count += 1
                    ORPHANS.inc()
                    event(_log, INFO, "orphaned content removed", content=content_id)
        return count

    async def _without_record(self, content_ids: set[str]) -> set[str]:
        """Those of whose mails no record is in the queue or was set aside."""
        left: dict[str, set[str]] = {}
        for content_id in filter(is_message_id, content_ids):
            left.setdefault(_mail_of(content_id), set()).add(content_id)
        offset = 0
        while subjects := await self._store.subjects(QUEUE_STREAM, "queue.>", offset=offset):
            offset += len(subjects)
            for subject in subjects:
                left.pop(subject.rpartition(".")[2], None)
        for message_id in await mails_set_aside(self._store):
            left.pop(message_id, None)
        return set().union(*left.values())

    async def _is_orphan(self, content_id: str, chunk: str, age: timedelta) -> bool:
        stored = await self._store.last(CONTENT_STREAM, chunk)
        if stored is None or self._now() - stored.time < age:
            return False
        # The list of subjects is of a moment ago.
        return not await is_unfinished(self._store, _mail_of(content_id))


def _newest_chunks(subjects: list[str]) -> dict[str, str]:
    """The subject of each content's chunk with the highest number: chunk 1 is stored last but may
    never be, and of the others this one is the newest."""
    newest: dict[str, tuple[int, str]] = {}
    for subject in subjects:
        _, content_id, number = subject.split(".")
        if content_id not in newest or int(number) > newest[content_id][0]:
            newest[content_id] = int(number), subject
    return {content_id: subject for content_id, (_, subject) in newest.items()}


def _mail_of(content_id: str) -> str:
    """The mail whose content this is: the ingress names it so, and delivery adds a suffix."""
    return _OWN_SUFFIX.sub("", content_id)
