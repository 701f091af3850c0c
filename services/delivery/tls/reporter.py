"""Tells domains each day how encryption with them went: TLSRPT, RFC 8460.

Each process reports on its own sessions, for the time from midnight (UTC) or its start to midnight
or its end, so nothing is shared and nothing is stored. What a process that is killed had counted is
not told. Reports by mail go through the queue like our other mail, are signed like it, and are sent
without encryption where that is what they report on. One over HTTPS is tried once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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
from services.delivery.tls.https import Https, HttpsFailed
from services.delivery.tls.report import TlsReport
from services.delivery.tls.tally import Policies, Tally
from services.delivery.tls.tls_report_mail import (
    CONTENT_TYPE,
    Submission,
    compressed,
    document,
    report_mail,
)
from services.delivery.tls.tls_report_record import WebPlace, endpoints_in

LOOK_S: Final = 30.0
SPREAD_S: Final = 3600.0
"""Reports leave at some moment within this after midnight: everybody sends them then."""

AT_ONCE: Final = 10
"""Domains whose reports are seen to at a time: some web places answer slowly."""

CLOSE_S: Final = 5.0

SENT: Final = Counter(
    "gatepost_delivery_tls_reports_total",
    "Reports on encryption for domains that ask for them, by what became of them.",
    ["result"],  # queued, posted, failed
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to be told to a domain."""

    domain: str
    policies: Policies
    begin: datetime
    end: datetime


class TlsReporter:
    """Counts sessions and reports on them. One per process."""

    def __init__(
        self,
        store: JetStream,
        source: ConfigSource,
        resolver: Resolver,
        https: Https,
        *,
        now: Callable[[], datetime],
        spread_s: float = SPREAD_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._source = source
        self._resolver = resolver
        self._https = https
        self._now = now
        self._spread_s = spread_s
        self._look_s = look_s
        self._tally = Tally(now())
        self._due: deque[_Due] = deque()

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
            if self._due:
                await asyncio.sleep(random.uniform(0, self._spread_s))  # noqa: S311 - no secret
                await self._report()

    async def close(self) -> None:
        """Report on what is left, as far as that is quickly done."""
        self._end(self._now())
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
            self._end(min(midnight, _next_midnight(self._tally.since)))
            self._tally = Tally(midnight)

    def _end(self, end: datetime) -> None:
        tally, self._tally = self._tally, Tally(end)
        for domain, policies in tally.domains.items():
            self._due.append(_Due(domain, policies, tally.since, end))

    async def _report(self) -> None:
        while self._due:
            together = [self._due.popleft() for _ in range(min(AT_ONCE, len(self._due)))]
            if self._source.current.delivery.tls_reports.enabled:
                await asyncio.gather(*map(self._report_to, together))

    async def _report_to(self, due: _Due) -> None:
        answer = await txt(self._resolver, f"_smtp._tls.{due.domain}")
        if answer.status is not Status.OK:
            return
        for endpoint in endpoints_in(answer.records):
            submission = Submission(
                identity=f"tls-{new_session_id()}",
                hostname=self._source.current.smtp.hostname,
                contact=self._sender(),
                begin=due.begin,
                end=due.end,
            )
            told = compressed(document(due.policies, submission))
            fields = {"domain": due.domain, "report": submission.identity}
            try:
                if isinstance(endpoint, WebPlace):
                    await self._post(endpoint, told)
                else:
                    content = report_mail(due.domain, told, submission, endpoint)
                    await self._store.publish(ready(self._record(submission, endpoint, content)))
            except (StoreError, HttpsFailed) as error:
                SENT.labels("failed").inc()
                event(_log, INFO, "report on encryption lost", reason=str(error), **fields)
            else:
                SENT.labels("posted" if isinstance(endpoint, WebPlace) else "queued").inc()
                event(_log, INFO, "report on encryption sent", **fields)

    async def _post(self, place: WebPlace, told: bytes) -> None:
        asked = self._https.asked(
            "POST", place.host, place.path, body=told, headers={"Content-Type": CONTENT_TYPE}
        )
        async with asked as response:
            if not response.ok:
                raise HttpsFailed(f"{place.host}: answers with status {response.status}")

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
