"""The life of one record in hand, from the consumer to the acknowledgement.

    read → still the newest state? → route → a turn at the next hop → attempt → decide → tell → put
    back └ none soon, or we are behind: parked; what the next hop fails with counts now and then

Guarantees: whatever goes wrong in here, the record is either finished, put back with a time, set
aside as unreadable, or left unacknowledged, and then it is handed out again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter, Histogram

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common import log
from services.common.config.source import ConfigSource
from services.common.failpoint import Failpoint, reached
from services.common.jetstream import Delivery, JetStream, TooLarge
from services.common.log import ERROR, INFO, WARNING, event
from services.common.mail.reply import Reply
from services.common.queue.record import accept_time, pending, read_record
from services.common.queue.subjects import RecordKey, parse_record_subject
from services.delivery.attempt import Attempt, Attempts, NotAttempted, completed, without
from services.delivery.content import Content
from services.delivery.decision import Decision, decide, failure_counts
from services.delivery.destinations import Destinations, Suspension
from services.delivery.events import Events
from services.delivery.ledger import SUPERSEDED, Ledger
from services.delivery.notifier import Notifier
from services.delivery.outcome import Outcome, Result, result_of
from services.delivery.precedence import BUSY, Precedence, is_fresh
from services.delivery.route import (
    LocalRoute,
    Route,
    RouteKind,
    is_ours_elsewhere,
    route_of,
    submitting_domain,
)
from services.delivery.slots import Parked, Slots
from services.delivery.suppressions import Suppressions

FRESH_S: Final = 1.0
"""A record that was handed out this soon after it was stored cannot have been in hand before: a
server that forgot so in a crash takes longer to come back."""

CLOCK_ERROR: Final = timedelta(minutes=1)
"""A record that was stored longer than this after its mail was accepted, or before, tells that the
clock of ingress is wrong. Storing takes seconds."""

LACKING_PAUSE: Final = timedelta(seconds=15)
"""How long mail waits for `keys`, which is down or misconfigured, or for the store of policies; no
attempt is counted. A restart takes some seconds."""

ATTEMPTS = Counter(
    "gatepost_delivery_attempts_total",
    "Results of attempts, one for each recipient.",
    ["route", "outcome"],  # local, relay, smarthost, mx; delivered, temporary, permanent
)
ATTEMPT_SECONDS = Histogram(
    "gatepost_delivery_attempt_seconds",
    "Time of an attempt, from its turn to its result.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
QUEUE_SECONDS = Histogram(
    "gatepost_delivery_queue_seconds",
    "Time from acceptance to delivery, of each recipient that was delivered to.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 3600, 14400, 86400),
)
PARKED = Counter(
    "gatepost_delivery_parked_total",
    "Records put back without an attempt, by what they wait for.",
    # busy, behind, failing, suspended, unknown (domain), and what is lacking: unsigned, policies
    ["reason"],
)

SUSPENDED_PAUSE: Final = timedelta(minutes=15)
"""A suspension that ends early is noticed within this."""

CONFIG_PATIENCE: Final = timedelta(minutes=10)
"""A ConfigMap reaches one pod a minute or two after another."""

NOT_OURS_YET: Final = "policy took it for a local or relay domain, which delivery does not know yet"
SUSPENDED: Final = "the destination is suspended"
BEHIND: Final = "makes way for fresh mail, there is much to do"
FAILING: Final = "is left alone for a while"
INTERNAL: Final = Reply(451, "4.3.0", "An internal error; it is in the log of delivery")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hand:
    """A record in hand, with what belongs to it."""

    delivery: Delivery
    key: RecordKey
    record: QueuedMessage
    content: Content
    route: Route
    decided: Mapping[str, Result]
    """Of the recipients that are not tried, by their addresses."""
    since: float
    """Of the monotonic clock."""

    @property
    def held_s(self) -> float:
        """How long it has been in hand."""
        return time.monotonic() - self.since


class Worker:
    """Handles records. One per process; any number of records at a time."""

    def __init__(
        self,
        store: JetStream,
        source: ConfigSource,
        *,
        attempts: Attempts,
        slots: Slots,
        ledger: Ledger,
        notifier: Notifier,
        events: Events,
        destinations: Destinations,
        suppressions: Suppressions,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._source = source
        self._attempts = attempts
        self._slots = slots
        self._ledger = ledger
        self._notifier = notifier
        self._events = events
        self._destinations = destinations
        self._suppressions = suppressions
        self._now = now
        self._precedence = Precedence(time.monotonic)

    async def handle(self, delivery: Delivery) -> None:
        """See to one record. Raises `StoreError` and others: it is then handed out again."""
        reached(Failpoint.AFTER_FETCH)
        try:
            _, key = parse_record_subject(delivery.subject)
            record = read_record(delivery.data, key)
        except ValueError as error:
            await self._ledger.bury(delivery, str(error))
            return
        with log.message(key.message_id):
            try:
                await self._handle(delivery, key, record)
            except TooLarge as error:
                # Handed out again it would be delivered again, and come here again.
                await self._ledger.bury(delivery, f"what became of it cannot be stored: {error}")

    async def _handle(self, delivery: Delivery, key: RecordKey, record: QueuedMessage) -> None:
        since = time.monotonic()
        if self._may_be_old(delivery, record) and await self._ledger.is_superseded(
            delivery, key, record
        ):
            await self._drop(delivery, key)
            return
        _correct_accept_time(record, delivery.time)
        route = route_of(self._source.current, key.destination, submitting_domain(record))
        decided = await self._suppressions.results(record, route)
        hand = Hand(delivery, key, record, Content(self._store, record), route, decided, since)
        if is_ours_elsewhere(route, record) and self._age(record) < CONFIG_PATIENCE:
            await self._put_back(hand, LACKING_PAUSE, NOT_OURS_YET, reason="unknown")
            return
        suspension = self._destinations.suspension(key.destination)
        if suspension is not None:
            await self._put_back(hand, self._until(suspension), SUSPENDED, reason="suspended")
            return
        if decided and all(each.address in decided for each in pending(record)):
            await self._settle(hand, completed(Attempt([]), record, decided))
            return
        if is_fresh(record) and not self._slots.defers_all(route.key):
            await self._take_turn(hand)
            return
        wait_s = self._precedence.take((self._now() - delivery.time).total_seconds())
        if wait_s is not None:
            await self._put_back(hand, timedelta(seconds=wait_s), BEHIND, reason="behind")
            return
        taken, tried_s = time.monotonic(), 0.0
        try:
            tried_s = await self._take_turn(hand)
        finally:
            self._precedence.give(time.monotonic() - taken, tried_s=tried_s)

    async def _drop(self, delivery: Delivery, key: RecordKey) -> None:
        SUPERSEDED.inc()
        event(_log, INFO, "record superseded", destination=key.destination)
        await self._ledger.remove(delivery)

    async def _take_turn(self, hand: Hand) -> float:
        """Have a turn at the next hop and use it, or put the record back until it comes.

        Returns how many seconds the next hop took.
        """
        if not isinstance(hand.route, LocalRoute):
            parked = await self._slots.take(hand.route.key)
            if parked is not None:
                await self._park(hand, parked, hand.route.key)
                return 0.0
        began = time.monotonic()
        tried_s = 0.0
        try:
            attempt = await self._attempt(hand)
            tried_s = time.monotonic() - began
        except NotAttempted as error:
            event(_log, WARNING, "not attempted", reason=str(error))
            await self._put_back(hand, LACKING_PAUSE, str(error), reason=error.lacking)
        else:
            if hand.content.is_missing and await self._ledger.is_finished(hand.key):
                await self._drop(hand.delivery, hand.key)
            else:
                await self._settle(hand, attempt)
        return tried_s

    def _may_be_old(self, delivery: Delivery, record: QueuedMessage) -> bool:
        """Whether this record may have been in hand before, or is one that an operator held.

        The server's count does not survive its crash, so the age decides too; clocks that differ
        only make us look when we need not.
        """
        age = abs((self._now() - delivery.time).total_seconds())
        return delivery.redelivered or age > FRESH_S or record.HasField("due_time")

    # --- an attempt -----------------------------------------------------------------------------

    async def _attempt(self, hand: Hand) -> Attempt:
        """Attempt, and let go of the turn at the next hop. Raises `NotAttempted`."""
        route, started = hand.route, time.monotonic()
        failure, deferred = None, False
        try:
            rest = without(hand.record, hand.decided)
            attempt = await self._attempts.make(route, rest, hand.content)
            failure = attempt.failure
            deferred = all(each.outcome is Outcome.TEMPORARY for each in attempt.results)
        except NotAttempted:
            raise
        except Exception:  # noqa: BLE001 - a mail that we stumble over must not be lost nor loop
            event(_log, ERROR, "attempt failed by an error of ours", exc_info=True)
            return Attempt([result_of(INTERNAL)] * len(pending(hand.record)))
        finally:
            seconds = time.monotonic() - started
            ATTEMPT_SECONDS.labels(route.kind).observe(seconds)
            if not isinstance(route, LocalRoute):
                # The time that the store took says nothing of the next hop.
                seconds -= hand.content.waited_s
                self._slots.give(route.key, seconds, failure=failure, deferred=deferred)
        return completed(attempt, hand.record, hand.decided)

    async def _settle(
        self, hand: Hand, attempt: Attempt, *, sooner: timedelta = timedelta.max
    ) -> None:
        """Do what the results mean. A retry may be due `sooner` than the settings say."""
        record, now = hand.record, self._now()
        tried = pending(record)
        decision = decide(
            record,
            attempt.results,
            now=now,
            retry=self._source.current.delivery.retry,
            local=hand.route.kind is RouteKind.LOCAL,
        )
        if decision.due is not None and sooner < decision.due - now:
            decision = dataclasses.replace(decision, due=now + sooner)
        self._count(hand, attempt.results, now)
        if decision.notices:
            await self._notifier.notify(record, hand.content, decision, now)
        if decision.due is None:
            await self._ledger.finish(hand.delivery, record)
        else:
            await self._ledger.defer(hand.delivery, record, decision.due, held_s=hand.held_s)
        self._log_results(hand, attempt, decision)
        await self._suppressions.learn(tried, attempt.results, hand.route)
        await self._events.attempt(
            record,
            tried,
            next_hop=attempt.next_hop,
            tls_version=attempt.tls_version,
            tls=attempt.tls,
            now=now,
            due=decision.due,
        )

    def _count(self, hand: Hand, results: list[Result], now: datetime) -> None:
        waited = (now - accept_time(hand.record)).total_seconds()
        for result in results:
            ATTEMPTS.labels(hand.route.kind, result.outcome).inc()
            if result.outcome is Outcome.DELIVERED:
                QUEUE_SECONDS.observe(max(waited, 0.0))

    def _log_results(self, hand: Hand, attempt: Attempt, decision: Decision) -> None:
        for recipient, result in zip(attempt.addresses, attempt.results, strict=False):
            event(
                _log,
                INFO,
                "recipient tried",
                destination=hand.key.destination,
                recipient=recipient,
                outcome=result.outcome,
                reply=result.reply,
                next_hop=result.next_hop,
                attempt=hand.record.attempts,
                due=decision.due,
            )

    def _until(self, suspension: Suspension) -> timedelta:
        if suspension.until is None:
            return SUSPENDED_PAUSE
        return min(suspension.until - self._now(), SUSPENDED_PAUSE)

    def _age(self, record: QueuedMessage) -> timedelta:
        return self._now() - accept_time(record)

    # --- no attempt -----------------------------------------------------------------------------

    async def _park(self, hand: Hand, parked: Parked, next_hop: str) -> None:
        wait = timedelta(seconds=parked.seconds)
        if parked.failure is None:
            await self._put_back(hand, wait, BUSY, reason="busy")
            return
        retry = self._source.current.delivery.retry
        if failure_counts(hand.record, now=self._now(), retry=retry):
            # It may never have its turn while the next hop fails. A refusal of another mail's
            # session is not final for this one.
            failed = Result(Outcome.TEMPORARY, parked.failure)
            others = pending(without(hand.record, hand.decided))
            attempt = completed(Attempt([failed] * len(others)), hand.record, hand.decided)
            await self._settle(hand, attempt, sooner=wait)
            return
        why = f"{next_hop} {FAILING}: {parked.failure}"
        await self._put_back(hand, wait, why, reason="failing")

    async def _put_back(self, hand: Hand, wait: timedelta, why: str, *, reason: str) -> None:
        hand.record.wait_reason = why
        PARKED.labels(reason).inc()
        due = self._now() + wait
        await self._ledger.defer(hand.delivery, hand.record, due, held_s=hand.held_s)


def _correct_accept_time(record: QueuedMessage, stored: datetime) -> None:
    """A mail is as old as the server says: by a wrong clock of ingress it would be given up early.

    Only a record as ingress wrote it was stored when its mail was accepted.
    """
    is_as_written = not record.attempts and not record.HasField("due_time")
    if is_as_written and abs(stored - accept_time(record)) > CLOCK_ERROR:
        record.accept_time.FromDatetime(stored)
