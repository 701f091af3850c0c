"""Changes of a record's place in the queue, in the only safe order: publish, then acknowledge.

Guarantees: a record is removed only after whatever takes its place (the deferred record, the
notification, the copy in DEAD) was acknowledged by the server; a step that fails is tried again
until it succeeds or the process ends, and then the record is handed out anew. So nothing is lost,
and a mail that was delivered is delivered again only if our word about it never arrived.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypeVar

from prometheus_client import Counter

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.failpoint import Failpoint, reached
from services.common.jetstream import (
    Conflict,
    Delivery,
    JetStream,
    Outgoing,
    Refused,
    StoreError,
    Unavailable,
)
from services.common.log import ERROR, INFO, WARNING, event
from services.common.queue.record import deferred
from services.common.queue.subjects import DEAD_STREAM, QUEUE_STREAM, RecordKey, State
from services.common.topology import ACK_WAIT_S
from services.delivery import content
from services.delivery.batcher import Batcher
from services.delivery.dead import dead
from services.delivery.lookup import Lookup

LEASE_S: Final = ACK_WAIT_S * 0.8
"""A record that is in hand for longer may be in another worker's hands too, if our word that we are
at work did not arrive."""

MAX_LEAVING: Final = 600
MAX_LEAVING_OCTETS: Final = 64 * 1024 * 1024
"""Of records that are on their way back into the queue and need no place any more: as many as keep
the server busy, and what of memory they may take."""

FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 10.0

DEAD = Counter(
    "gatepost_delivery_set_aside_records_total",
    "Records set aside because they cannot be read, or their next state can never be stored.",
)
SUPERSEDED = Counter(
    "gatepost_delivery_superseded_records_total",
    "Records handed out although a newer state was in the queue already; dropped.",
)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Ledger:
    """The queue as a worker changes it."""

    def __init__(self, store: JetStream, *, lease_s: float = LEASE_S) -> None:
        self._store = store
        self._lease_s = lease_s
        self._contents = Batcher(store)
        self._deferrals = Batcher(store)
        self._lookup = Lookup(store)
        self._leaving = 0
        self._leaving_octets = 0
        self.on_leaving: Callable[[], None] = lambda: None
        """Told that `leaving` has grown."""

    @property
    def leaving(self) -> int:
        """How many of the records in hand are on their way back: others may have their places."""
        if self._leaving_octets > MAX_LEAVING_OCTETS:
            return 0
        return min(self._leaving, MAX_LEAVING)

    async def is_superseded(
        self, delivery: Delivery, key: RecordKey, record: QueuedMessage
    ) -> bool:
        """Whether this record went on to a newer state: only our acknowledgement was lost.

        An older `held` one is what a release left that did not come to its end, and is removed; if
        this record has a reason to wait nobody released it, and the held one counts: a hold did not
        come to its end. Raises `StoreError`.
        """
        if delivery.redelivered and await self._lookup.went_on(delivery, key, record):
            return True
        found = await self._lookup.waiting(key)
        if any(stored.sequence > delivery.sequence for stored in found.values()):
            return True
        if State.HELD in found:
            if record.wait_reason:
                return True
            left = found[State.HELD]  # one that came since is no leftover
            await self._store.purge(QUEUE_STREAM, left.subject, up_to=left.sequence)
        return False

    async def is_finished(self, key: RecordKey) -> bool:
        """Whether nothing was left to do for this record before: a publish that was in doubt came
        to pass after all. Raises `StoreError`.
        """
        return await self._lookup.is_finished(key)

    async def finish(self, delivery: Delivery, record: QueuedMessage) -> None:
        """Remove a record for which nothing is left to do, and its content."""
        await self.remove(delivery)
        try:
            await content.remove(self._store, record)
        except StoreError as error:
            # The sweeper finds it.
            event(_log, INFO, "content not removed yet", reason=str(error))

    async def remove(self, delivery: Delivery) -> None:
        """Acknowledge, until the server has noted it."""
        await self.insist(delivery.ack, "acknowledge")

    async def defer(
        self, delivery: Delivery, record: QueuedMessage, due: datetime, *, held_s: float
    ) -> None:
        """Put a record that was in hand for `held_s` seconds back, to be handed out at a time."""
        octets = len(record.inline_content)
        self._leaving += 1
        self._leaving_octets += octets
        self.on_leaving()
        try:
            await self._put_back(delivery, record, due, held_s=held_s)
        finally:
            self._leaving -= 1
            self._leaving_octets -= octets

    async def _put_back(
        self, delivery: Delivery, record: QueuedMessage, due: datetime, *, held_s: float
    ) -> None:
        may_be_gone = delivery.redelivered or held_s > self._lease_s
        if may_be_gone and await self._is_gone(delivery):
            self._tell_gone(delivery)
            return
        await self.insist(lambda: content.move_to_stream(self._contents, record), "store content")
        if not await self.insist(lambda: self._publish_deferred(delivery, record, due), "defer"):
            # Without an acknowledgement: should it be there all the same, it is handed out again.
            self._tell_gone(delivery)
            return
        reached(Failpoint.AFTER_DEFER)
        await self.remove(delivery)

    def _tell_gone(self, delivery: Delivery) -> None:
        SUPERSEDED.inc()
        event(_log, INFO, "record finished by another worker", subject=delivery.subject)

    async def _is_gone(self, delivery: Delivery) -> bool:
        """Whether somebody else finished the record: its content would be stored for nothing."""
        stored = await self.insist(
            lambda: self._store.at(QUEUE_STREAM, delivery.sequence), "look up the record"
        )
        return stored is None

    async def _publish_deferred(
        self, delivery: Delivery, record: QueuedMessage, due: datetime
    ) -> bool:
        """Whether the record is in the queue, to come again. Not if somebody finished it.

        Only while the record in hand is the newest that is due: an earlier try may have timed out
        and come to pass, and have become due since.
        """
        try:
            await self._deferrals.publish(
                deferred(record, due),
                expected_last_sequence=delivery.sequence,
                on_subject=delivery.subject,
            )
        except Conflict:
            newest = await self._store.last(QUEUE_STREAM, delivery.subject)
            if newest is None:
                return False
            if newest.sequence <= delivery.sequence:
                raise Unavailable("the record in hand is the newest, and yet it is not") from None
        return True

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Set aside a record that cannot be read, or whose next state the server will never take,
        with its octets and the reason."""
        message = dead(delivery.sequence, delivery.subject, delivery.data, reason)
        await self.insist(lambda: self._publish_dead(message), "set aside")
        DEAD.inc()
        event(_log, ERROR, "record set aside", subject=delivery.subject, reason=reason)
        await self.remove(delivery)

    async def _publish_dead(self, message: Outgoing) -> None:
        try:
            await self._store.publish(message, expected_last_sequence=0)
        except Conflict:
            found = await self._store.last(DEAD_STREAM, message.subject)
            if found is None or found.data != message.data:
                await self._store.publish(message)

    async def insist(self, step: Callable[[], Awaitable[T]], what: str) -> T:
        """Do a step until it succeeds. Raises `Refused`: that no waiting mends."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await step()
            except Refused:
                raise
            except StoreError as error:
                event(
                    _log, WARNING, "the queue cannot be changed yet", step=what, reason=str(error)
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_S)
