"""What happens to mail, told to EVENTS: best effort, so that telling never holds up delivering."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from prometheus_client import Counter

from gatepost.queue.v1.event_pb2 import (
    ATTEMPT_OUTCOME_DEFERRED,
    ATTEMPT_OUTCOME_DELIVERED,
    ATTEMPT_OUTCOME_FAILED,
    AttemptEvent,
    AttemptOutcome,
    Event,
    NotificationEvent,
    OperatorEvent,
    RecipientOutcome,
    TlsSession,
)
from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.jetstream import JetStream, Outgoing, StoreError
from services.common.log import WARNING, event
from services.common.queue.subjects import event_subject
from services.delivery.tls.report import TlsReport

LOST = Counter("gatepost_delivery_events_lost_total", "Events that could not be published.")

_OUTCOMES: Final[dict[int, AttemptOutcome.ValueType]] = {
    RecipientState.RECIPIENT_STATE_PENDING: ATTEMPT_OUTCOME_DEFERRED,
    RecipientState.RECIPIENT_STATE_DELIVERED: ATTEMPT_OUTCOME_DELIVERED,
    RecipientState.RECIPIENT_STATE_FAILED: ATTEMPT_OUTCOME_FAILED,
}

_log = logging.getLogger(__name__)


class Events:
    """Publishes events."""

    def __init__(self, store: JetStream) -> None:
        self._store = store

    async def attempt(
        self,
        record: QueuedMessage,
        tried: Sequence[Recipient],
        *,
        next_hop: str,
        tls_version: str,
        tls: Sequence[TlsReport],
        now: datetime,
        due: datetime | None,
    ) -> None:
        """An attempt ended; the record stands as it is after it."""
        told = AttemptEvent(
            destination=record.destination,
            attempt=record.attempts,
            next_hop=next_hop,
            tls_version=tls_version,
            recipients=[
                RecipientOutcome(
                    address=recipient.address,
                    outcome=_OUTCOMES[recipient.state],
                    reply=recipient.last_status.reply,
                )
                for recipient in tried
            ],
            tls_sessions=[
                TlsSession(
                    host=report.host,
                    policy=report.policy,
                    mode=report.mode,
                    result=report.result,
                    detail=report.detail,
                )
                for report in tls
            ],
        )
        if due is not None:
            told.due_time.FromDatetime(due)
        await self._tell(Event(message_id=record.message_id, attempt=told), "attempt", now)

    async def notification(
        self,
        record: QueuedMessage,
        identity: str,
        action: str,
        recipients: Sequence[Recipient],
        now: datetime,
    ) -> None:
        """The sender was told something."""
        told = NotificationEvent(
            notification_id=identity,
            action=action,
            recipients=[recipient.address for recipient in recipients],
        )
        happened = Event(message_id=record.message_id, notification=told)
        await self._tell(happened, "notification", now)

    async def operator(self, message_id: str, method: str, destination: str, now: datetime) -> None:
        """An operator changed something."""
        told = OperatorEvent(method=method, destination=destination)
        await self._tell(Event(message_id=message_id, operator=told), "operator", now)

    async def _tell(self, happened: Event, kind: str, now: datetime) -> None:
        happened.event_time.FromDatetime(now)
        subject = event_subject(happened.message_id, kind)
        try:
            await self._store.tell(Outgoing(subject, happened.SerializeToString()))
        except StoreError as error:
            LOST.inc()
            event(_log, WARNING, "event not published", kind=kind, reason=str(error))
