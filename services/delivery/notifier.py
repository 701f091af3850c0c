"""Queues the notifications about a mail, before the mail itself is removed from the queue."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from prometheus_client import Counter

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.source import ConfigSource
from services.common.failpoint import Failpoint, reached
from services.common.jetstream import JetStream, Outgoing, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.address import AddressError, Mailbox, parse_mailbox
from services.common.mail.message import MAX_HEADER_OCTETS, header_length
from services.common.queue.record import SCHEMA_VERSION, accept_time, ready, sender_of
from services.delivery.content import Content, ContentError
from services.delivery.decision import Action, Decision
from services.delivery.events import Events
from services.delivery.ledger import Ledger
from services.delivery.notification import Report, make_report, returns_all
from services.delivery.retry import horizon

NOTIFICATIONS = Counter(
    "gatepost_delivery_notifications_total",
    "Notifications queued for senders, by what they tell.",
    ["action"],  # failed, delayed, delivered, relayed
)

_DEDUPLICATION_HEADER: Final = "Nats-Msg-Id"

_log = logging.getLogger(__name__)


class Notifier:
    """Tells senders."""

    def __init__(
        self, store: JetStream, ledger: Ledger, events: Events, source: ConfigSource
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._events = events
        self._source = source

    async def notify(
        self, record: QueuedMessage, content: Content, decision: Decision, now: datetime
    ) -> None:
        """Queue what the decision says that the sender is to be told."""
        for action, recipients in decision.notices.items():
            returned = await self._returned(record, content, action)
            report = make_report(
                record,
                action,
                recipients,
                returned=returned,
                hostname=self._source.current.smtp.hostname,
                now=now,
                give_up=self._give_up_time(record, now) if action is Action.DELAYED else None,
            )
            await self._queue(record, report, now)
            NOTIFICATIONS.labels(action).inc()
            event(_log, INFO, "sender notified", action=action, notification=report.id)
            await self._events.notification(record, report.id, action, recipients, now)

    async def _queue(self, record: QueuedMessage, report: Report, now: datetime) -> None:
        recipient = self._recipient(record)
        if recipient is None:
            return
        message = ready(_report_record(record, report, recipient, now))
        # The server drops a second one within its window of two minutes: that of an attempt whose
        # acknowledgement was lost.
        headers = {**message.headers, _DEDUPLICATION_HEADER: report.id}
        outgoing = Outgoing(message.subject, message.data, headers)
        await self._ledger.insist(lambda: self._store.publish(outgoing), "queue a notification")
        reached(Failpoint.AFTER_NOTIFY)

    def _recipient(self, record: QueuedMessage) -> Mailbox | None:
        """Where the notification goes: to the account, if it was submitted here by one."""
        sender = sender_of(record)
        if sender is None or not record.authenticated_account:
            return sender
        try:
            account = parse_mailbox(record.authenticated_account, smtputf8=True)
        except AddressError:
            return sender
        # The sender may be an alias of the account, which only policy could resolve.
        local = self._source.current.domains.local
        return account if sender.domain in local and account.domain in local else sender

    def _give_up_time(self, record: QueuedMessage, now: datetime) -> datetime:
        retry = self._source.current.delivery.retry
        # From now: mail that was suspended or held has all its attempts after that.
        left = horizon(retry, record.attempts)
        age = now - accept_time(record)
        return now + (min(left, retry.max_age - age) if retry.max_age else left)

    async def _returned(self, record: QueuedMessage, content: Content, action: Action) -> bytes:
        """The mail or its header; what can be had of it if the content is gone."""
        found = bytearray()
        whole = returns_all(record, action)
        try:
            async for block in content.blocks():
                found += block
                length = None if whole else header_length(found)
                if length is not None or (not whole and len(found) > MAX_HEADER_OCTETS):
                    return bytes(found[:length])
        except (ContentError, StoreError) as error:
            event(_log, WARNING, "notification without the mail", reason=str(error))
        return bytes(found)


def _report_record(
    record: QueuedMessage, report: Report, recipient: Mailbox, now: datetime
) -> QueuedMessage:
    made = QueuedMessage(
        schema_version=SCHEMA_VERSION,
        message_id=report.id,
        destination=recipient.domain,
        recipients=[
            Recipient(
                address=str(recipient),
                original_address=record.sender,
                notify=["NEVER"],
                state=RecipientState.RECIPIENT_STATE_PENDING,
            )
        ],
        body="" if report.content.isascii() else "8BITMIME",
        smtputf8=not (str(recipient).isascii() and b"message/global" not in report.content),
        inline_content=report.content,
        size=len(report.content),
    )
    made.accept_time.FromDatetime(now)
    return made
