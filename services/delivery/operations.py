"""What operators do to records: retry, hold, release, cancel, and put dead ones back.

A record that waits can be handled; one that is due is in somebody's hands or will be in a moment,
and is left alone. Every change begins with a publish that fails if the record moved in the
meantime: it makes the record due now, or claims it for a minute for the steps that follow. Each of
these fails in its turn, or removes nothing, if somebody else has taken the record over since. So
two operators, or an operator and the clock, cannot both have their way with it.

Guarantees: a crash between two steps leaves the record in its old state or in two states of which
it is known which one counts; never in none. A content goes only with the last state of its record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import Conflict, JetStream
from services.common.mail.reply import Reply
from services.common.queue.record import (
    UnreadableRecord,
    deferred,
    held,
    key_of,
    read_record,
    ready,
)
from services.common.queue.subjects import (
    DEAD_STREAM,
    QUEUE_STREAM,
    RecordKey,
    State,
    parse_record_subject,
    record_filter,
)
from services.common.store import Outgoing, Stored
from services.delivery import content
from services.delivery.content import Content
from services.delivery.dead import SUBJECT_HEADER
from services.delivery.decision import give_up
from services.delivery.notifier import Notifier

CANCELLED: Final = Reply(554, "5.0.0", "Cancelled by the operator of the mail system")

CLAIMED: Final = "an operator changes it"
"""Why a record waits that is being changed. It is never empty: a record that comes due with a
reason, while it is held, was not released."""

_CLAIM: Final = timedelta(minutes=1)
"""For how long nobody else changes a record that is being changed. If we die on the way, or take
longer, another may."""

_FROZEN: Final = timedelta(days=1)
"""For how long a record is kept from becoming due while it is changed. If we die on the way it is
tried again after this."""

_STATES: Final = 10
"""More than a record is ever in at a time."""

_MOVED: Final = "it moved in the meantime; look again"


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
        on_retry: Callable[[QueuedMessage], Awaitable[datetime | None]],
    ) -> None:
        """`on_retry` is told the record that an operator wants tried, before it is due; it answers
        with the time before which some would not try it, if there is such a time."""
        self._store = store
        self._notifier = notifier
        self._now = now
        self._on_retry = on_retry

    async def retry(self, stored: Stored) -> Stored:
        """Have a record that waits tried now, whatever its next hop did before."""
        state, record = self._opened(stored)
        if state is State.HELD:
            raise NotPossible("it is held; release it to have it tried")
        due = await self._on_retry(record)
        if due is not None and state is State.DEFERRED:
            return await self._replace(stored, record, due)
        return await self.make_due(stored)

    async def make_due(self, stored: Stored) -> Stored:
        """Make a record that waits due now. Others are not touched."""
        state, record = self._opened(stored)
        if state is State.DEFERRED:
            return await self._replace(stored, record, self._now() - timedelta(seconds=1))
        return stored

    async def hold(self, stored: Stored) -> Stored:
        """Keep a record from being tried. One that is held stays so."""
        state, record = self._opened(stored)
        if state is State.READY:
            raise NotPossible("it is being tried now; once it is deferred it can be held")
        if state is State.HELD:
            return stored
        reason = record.wait_reason
        claim = await self._claim(stored, state, record)
        record.wait_reason = "" if reason == CLAIMED else reason
        message = held(record)
        sequence = await self._publish(message, expected=claim, on_subject=stored.subject)
        await self._store.purge(QUEUE_STREAM, stored.subject, up_to=claim)
        return self._standing(message, sequence)

    async def release(self, stored: Stored) -> Stored | None:
        """Let a held record go on, at once. Others are not touched."""
        state, record = self._opened(stored)
        if state is not State.HELD:
            return stored if state is State.READY else None
        claim = await self._claim(stored, state, record)
        record.due_time.FromDatetime(self._now())
        # Without a reason, which tells whoever is handed it that it was released: if we die before
        # the held state is removed, he removes it.
        record.wait_reason = ""
        message = ready(record)
        sequence = await self._publish(message, expected=claim, on_subject=stored.subject)
        await self._store.purge(QUEUE_STREAM, stored.subject, up_to=claim)
        return self._standing(message, sequence)

    async def cancel(self, stored: Stored, *, notify: bool) -> Stored:
        """Remove a record that waits or is held, and answer with it as it was; with `notify` its
        sender is told."""
        state, record = self._opened(stored)
        if state is State.READY:
            raise NotPossible("it is being tried now; once it is deferred it can be cancelled")
        claim = await self._claim(stored, state, record)
        if notify:
            now = self._now()
            decision = give_up(record, CANCELLED, now)
            await self._notifier.notify(record, Content(self._store, record), decision, now)
        removed = await self._store.purge(QUEUE_STREAM, stored.subject, up_to=claim)
        others = await self._other_states(record, stored.subject, claim)
        if not removed or any(other.sequence > claim for other in others):
            raise NotPossible(_MOVED)  # somebody took it over, when our claim had ended
        if not others:
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
        # A conflict: it was published before, by one who died before the second step.
        with contextlib.suppress(Conflict):
            await self._store.publish(ready(record), expected_last_sequence=0)
        await self._store.delete(DEAD_STREAM, sequence)
        return key

    def _opened(self, stored: Stored) -> tuple[State, QueuedMessage]:
        """The record, which nobody else is changing at this moment."""
        state, key = parse_record_subject(stored.subject)
        try:
            record = read_record(stored.data, key)
        except UnreadableRecord as error:
            raise NotPossible(f"it cannot be read: {error}") from error
        is_waiting = state is not State.READY
        if is_waiting and record.wait_reason == CLAIMED and self._now() - stored.time < _CLAIM:
            raise NotPossible("it is being changed by an operator; look again in a minute")
        return state, record

    async def _claim(self, stored: Stored, state: State, record: QueuedMessage) -> int:
        """Keep others from changing a record that waits or is held, and a waiting one from becoming
        due, while it is handled. Returns its sequence in the queue from now on."""
        record.wait_reason = CLAIMED
        if state is State.DEFERRED:
            return (await self._replace(stored, record, self._now() + _FROZEN)).sequence
        key = key_of(record)
        if await self._store.last(QUEUE_STREAM, key.subject(State.READY)) is not None:
            raise NotPossible("it is being tried now")  # a release did not come to its end
        claim = await self._publish(held(record), expected=stored.sequence)
        # What a hold left that did not come to its end would become due one day.
        deferred_subject = key.subject(State.DEFERRED)
        await self._store.purge(QUEUE_STREAM, deferred_subject, up_to=stored.sequence)
        return claim

    async def _other_states(self, record: QueuedMessage, subject: str, claim: int) -> list[Stored]:
        """What is in the queue of a record besides what was claimed on this subject."""
        states = record_filter(destination=record.destination, message_id=record.message_id)
        found = await self._store.page(QUEUE_STREAM, states, after_sequence=0, count=_STATES)
        return [each for each in found if each.subject != subject or each.sequence > claim]

    async def _replace(self, stored: Stored, record: QueuedMessage, due: datetime) -> Stored:
        message = deferred(record, due)
        sequence = await self._publish(message, expected=stored.sequence)
        return self._standing(message, sequence)

    async def _publish(self, message: Outgoing, *, expected: int, on_subject: str = "") -> int:
        try:
            return await self._store.publish(
                message, expected_last_sequence=expected, on_subject=on_subject
            )
        except Conflict as error:
            raise NotPossible(_MOVED) from error

    def _standing(self, message: Outgoing, sequence: int) -> Stored:
        # Not read back: the server may have moved it on, and delivery may be done with it.
        return Stored(message.subject, sequence, message.data, self._now(), message.headers)
