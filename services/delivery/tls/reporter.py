"""Tells domains each day how encryption with them went: TLSRPT, RFC 8460.

Each process reports on its own sessions, for the time from midnight (UTC) or its start to midnight
or its end, so nothing is shared and nothing is stored. What a process that is killed had counted is
not told. Reports go through the queue like our other mail, are signed like it, and are sent without
encryption where that is what they report on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Counter

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.source import ConfigSource
from services.common.dns import Resolver, Status, txt
from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.address import Mailbox, parse_mailbox
from services.common.mail.ids import new_session_id
from services.common.queue.record import SCHEMA_VERSION, ready
from services.delivery.tls.report import TlsReport
from services.delivery.tls.tally import Policies, Tally
from services.delivery.tls.tls_report_mail import Submission, addresses_in, document, report_mail

LOOK_S: Final = 30.0
SPREAD_S: Final = 3600.0
"""Reports leave at some moment within this after midnight: everybody sends them then."""

CLOSE_S: Final = 5.0

SENT: Final = Counter(
    "gatepost_delivery_tls_reports_total",
    "Reports on encryption for domains that ask for them, by what became of them.",
    ["result"],  # queued, failed
)

_log = logging.getLogger(__name__)


class TlsReporter:
    """Counts sessions and reports on them. One per process."""

    def __init__(
        self,
        store: JetStream,
        source: ConfigSource,
        resolver: Resolver,
        *,
        now: Callable[[], datetime],
        spread_s: float = SPREAD_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._source = source
        self._resolver = resolver
        self._now = now
        self._spread_s = spread_s
        self._look_s = look_s
        self._tally = Tally(now())
        self._ended: list[tuple[Tally, datetime]] = []

    def add(self, report: TlsReport) -> None:
        """A new session, or one that could not be."""
        report.count()
        if self._source.current.delivery.tls_reports.enabled:
            self._turn()
            self._tally.add(report)

    async def follow(self) -> None:
        """Report on each day that ends, for ever."""
        while True:
            await asyncio.sleep(self._look_s)
            self._turn()
            if self._ended:
                await asyncio.sleep(random.uniform(0, self._spread_s))  # noqa: S311 - no secret
                await self._report()

    async def close(self) -> None:
        """Report on what is left, as far as that is quickly done."""
        self._ended.append((self._tally, self._now()))
        self._tally = Tally(self._now())
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._report()
        except TimeoutError:
            event(_log, WARNING, "not all reports on encryption are sent")

    def _turn(self) -> None:
        """Begin to count anew if the day is over."""
        now = self._now().astimezone(UTC)
        if now.date() > self._tally.since.date():
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            end = min(midnight, _next_midnight(self._tally.since))
            self._ended.append((self._tally, end))
            self._tally = Tally(midnight)

    async def _report(self) -> None:
        while self._ended:
            tally, end = self._ended[0]
            while tally.domains:
                domain, policies = tally.domains.popitem()
                if self._source.current.delivery.tls_reports.enabled:
                    await self._report_to(domain, policies, tally.since, end)
            del self._ended[0]

    async def _report_to(
        self, domain: str, policies: Policies, begin: datetime, end: datetime
    ) -> None:
        answer = await txt(self._resolver, f"_smtp._tls.{domain}")
        if answer.status is not Status.OK:
            return
        for to in addresses_in(answer.records):
            submission = Submission(
                identity=f"tls-{new_session_id()}",
                hostname=self._source.current.smtp.hostname,
                contact=self._sender(),
                begin=begin,
                end=end,
            )
            content = report_mail(domain, document(policies, submission), submission, to)
            try:
                await self._store.publish(ready(self._record(submission, to, content)))
            except StoreError as error:
                SENT.labels("failed").inc()
                event(_log, INFO, "report on encryption lost", domain=domain, reason=str(error))
            else:
                SENT.labels("queued").inc()
                fields = {"domain": domain, "report": submission.identity}
                event(_log, INFO, "report on encryption queued", **fields)

    def _sender(self) -> Mailbox:
        config = self._source.current
        address = config.delivery.tls_reports.sender
        domain = next(iter(config.domains.local), config.smtp.hostname)
        return parse_mailbox(address or f"postmaster@{domain}", smtputf8=True)

    def _record(self, submission: Submission, to: Mailbox, content: bytes) -> QueuedMessage:
        made = QueuedMessage(
            schema_version=SCHEMA_VERSION,
            message_id=submission.identity,
            destination=to.domain,
            sender=str(submission.contact),
            recipients=[
                Recipient(
                    address=str(to),
                    original_address=str(to),
                    notify=["NEVER"],
                    state=RecipientState.RECIPIENT_STATE_PENDING,
                )
            ],
            inline_content=content,
            size=len(content),
            encryption_optional=True,
        )
        made.accept_time.FromDatetime(self._now())
        return made


def _next_midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
