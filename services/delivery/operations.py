"""What operators do to records: retry, hold, release, cancel, and put dead ones back.

A record that waits can be handled; one that is due is in somebody's hands or will be in a moment,
and is left alone. Every change is a publish that fails if the record moved in the meantime, so that
two operators, or an operator and the clock, cannot both have their way with it.

Guarantees: a crash between two steps leaves the record in its old state or in two states of which
the newer counts; never in none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import Conflict, JetStream
from services.common.mail.reply import Reply
from services.common.queue.record import UnreadableRecord, deferred, held, read_record, ready
from services.common.queue.subjects import (
    DEAD_STREAM,
    QUEUE_STREAM,
    RecordKey,
    State,
    parse_record_subject,
)
from services.common.store import Outgoing, Stored
from services.delivery import content
from services.delivery.content import Content
from services.delivery.dead import SUBJECT_HEADER
from services.delivery.decision import give_up
from services.delivery.notifier import Notifier

CANCELLED: Final = Reply(554, "5.0.0", "Cancelled by the operator of the mail system")

_FROZEN: Final = timedelta(days=1)
"""For how long a record is kept from becoming due while it is handled. If we die on the way it is
tried again after this."""


class NotPossible(Exception):
    """The record is in no state for this. The text says so, for the operator."""


Operation = Callable[[Stored], Awaitable[Stored | None]]
"""Answers with the record as it stands then; None if this is nothing for a record in its state."""


class Operations:
    """Changes of records by hand. Every method raises `StoreError` and `NotPossible`."""

    def __init__(
        self,
        store: JetStream,
        notifier: Notifier,
        now: Callable[[], datetime],
        *,
        on_retry: Callable[[QueuedMessage], Awaitable[None]],
    ) -> None:
        """`on_retry` is told the record that an operator wants tried, before it is due."""
        self._store = store
        self._notifier = notifier
        self._now = now
        self._on_retry = on_retry

    async def retry(self, stored: Stored) -> Stored:
        """Have a record that waits tried now, whatever its next hop did before."""
        state, record = _readable(stored)
        if state is State.HELD:
            raise NotPossible("it is held; release it to have it tried")
        await self._on_retry(record)
        return await self.make_due(stored)

    async def make_due(self, stored: Stored) -> Stored:
        """Make a record that waits due now. Others are not touched."""
        state, record = _readable(stored)
        if state is State.DEFERRED:
            return await self._replace(stored, record, self._now() - timedelta(seconds=1))
        return stored

    async def hold(self, stored: Stored) -> Stored:
        """Keep a record from being tried. One that is held stays so."""
        state, record = _readable(stored)
        if state is State.READY:
            raise NotPossible("it is being tried now; once it is deferred it can be held")
        if state is State.HELD:
            return stored
        await self._freeze(stored, record)
        message = held(record)
        sequence = await self._store.publish(message)
        await self._store.purge(QUEUE_STREAM, stored.subject)
        return self._standing(message, sequence)

    async def release(self, stored: Stored) -> Stored | None:
        """Let a held record go on, at once. Others are not touched."""
        state, record = _readable(stored)
        if state is not State.HELD:
            return stored if state is State.READY else None
        record.due_time.FromDatetime(self._now())
        record.wait_reason = ""
        # The record is handed out with a due time, and then its held state, if we die before
        # it is removed, is found and removed.
        await self._publish_ready(record)
        await self._store.purge(QUEUE_STREAM, stored.subject)
        return self._standing(ready(record), stored.sequence)

    async def cancel(self, stored: Stored, *, notify: bool) -> Stored:
        """Remove a record that waits or is held, and answer with it as it was; with `notify` its
        sender is told."""
        state, record = _readable(stored)
        if state is State.READY:
            raise NotPossible("it is being tried now; once it is deferred it can be cancelled")
        if state is State.DEFERRED:
            await self._freeze(stored, record)
        if notify:
            now = self._now()
            decision = give_up(record, CANCELLED, now)
            await self._notifier.notify(record, Content(self._store, record), decision, now)
        await self._store.purge(QUEUE_STREAM, stored.subject)
        await content.remove(self._store, record)
        return stored

    async def requeue(self, sequence: int) -> RecordKey:
        """Put a record that was set aside back where it was found."""
        dead = await self._store.at(DEAD_STREAM, sequence)
        if dead is None:
            raise NotPossible("there is no such dead record")
        subject = dead.headers.get(SUBJECT_HEADER, "")
        try:
            _, key = parse_record_subject(subject)
            record = read_record(dead.data, key)
        except ValueError as error:
            raise NotPossible(f"it still cannot be read: {error}") from error
        if not await Content(self._store, record).is_there():
            raise NotPossible("its content is gone")
        if not record.HasField("due_time"):
            record.due_time.FromDatetime(self._now())  # not as old as the record in the queue
        await self._publish_ready(record)
        await self._store.delete(DEAD_STREAM, sequence)
        return key

    async def _publish_ready(self, record: QueuedMessage) -> None:
        # A conflict: it was published before, by one who died before the second step.
        with contextlib.suppress(Conflict):
            await self._store.publish(ready(record), expected_last_sequence=0)

    async def _freeze(self, stored: Stored, record: QueuedMessage) -> None:
        """Make sure that a waiting record does not become due while it is handled."""
        await self._replace(stored, record, self._now() + _FROZEN)

    async def _replace(self, stored: Stored, record: QueuedMessage, due: datetime) -> Stored:
        message = deferred(record, due)
        try:
            sequence = await self._store.publish(message, expected_last_sequence=stored.sequence)
        except Conflict as error:
            raise NotPossible("it moved in the meantime; look again") from error
        return self._standing(message, sequence)

    def _standing(self, message: Outgoing, sequence: int) -> Stored:
        # Not read back: the server may have moved it on, and delivery may be done with it.
        return Stored(message.subject, sequence, message.data, self._now(), message.headers)


def _readable(stored: Stored) -> tuple[State, QueuedMessage]:
    state, key = parse_record_subject(stored.subject)
    try:
        return state, read_record(stored.data, key)
    except UnreadableRecord as error:
        raise NotPossible(f"it cannot be read: {error}") from error
