"""Which MTA-STS policy a domain has: RFC 8461 §3 (discovery), §5 (what senders do), §10.2.

    TXT _mta-sts.<domain>: its id is that of the policy we have? → that one
                         └ another id, none yet, or it is a day old → fetch → keep → use
                                                                    └ failed → the one we have

Guarantees: a policy in force is kept whatever the DNS or the policy host says, until a new one was
fetched or its time is over; domains that announce none are asked for nothing; one fetch at a time
for a domain, and after one that failed none for `PAUSE_S`. When the store of policies cannot be
read nobody knows whether there is one: that is `StoreError`, and the mail waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter

from services.common.dns import Resolver, Status, txt
from services.common.log import INFO, event
from services.delivery.tls.report import TlsResult
from services.delivery.tls.sts_fetch import FetchFailed, PolicyHosts
from services.delivery.tls.sts_policy import InvalidPolicy, Mode, StsPolicy, parse_policy, record_id
from services.delivery.tls.sts_store import Fetched, StsStore

PAUSE_S: Final = 300.0
"""§3.3: at most one attempt in five minutes after a failed one."""

MAX_FAILURES: Final = 10_000

REFRESH: Final = timedelta(days=1)
"""A policy in use is fetched again after this, though its id is the same: so its time does not run
out while the domain's DNS is blocked (§10.2)."""

FETCHES: Final = Counter(
    "gatepost_delivery_mta_sts_fetches_total",
    "MTA-STS policies that were fetched from policy hosts, by what came of it.",
    ["result"],  # success, sts-policy-fetch-error, sts-policy-invalid, sts-webpki-invalid
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StsFinding:
    """What is known of a domain's policy."""

    policy: StsPolicy | None = None
    """The one in force, in mode testing or enforce; None if there is none."""
    failure: TlsResult | None = None
    """The domain announces a policy that could not be had."""
    detail: str = ""


NO_POLICY: Final = StsFinding()


@dataclass(frozen=True, slots=True)
class _Failure:
    """A fetch that failed, and when by the monotonic clock."""

    at: float
    text: str
    result: TlsResult


class MtaSts:
    """Finds policies. One per process."""

    def __init__(
        self,
        resolver: Resolver,
        hosts: PolicyHosts,
        store: StsStore,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._hosts = hosts
        self._store = store
        self._now = now
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[Fetched]] = {}
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    async def of(self, domain: str) -> StsFinding:
        """The policy of a domain (canonical). Raises `StoreError`."""
        answer = await txt(self._resolver, f"_mta-sts.{domain}")
        announced = record_id(answer.records) if answer.status is Status.OK else None
        known = await self._store.recall(domain, wanted_id=announced or "")
        if announced is None or (known is not None and self._is_current(known, announced)):
            return _finding(known)
        try:
            return _finding(await self._renewed(domain, announced))
        except FetchFailed as failure:
            if known is not None:
                return _finding(known)
            return StsFinding(failure=failure.result, detail=str(failure))

    async def close(self) -> None:
        """End the fetches under way."""
        tasks = tuple(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_current(self, known: Fetched, announced: str) -> bool:
        age = self._now() - known.at
        return known.id == announced and age < min(REFRESH, known.policy.max_age / 2)

    async def _renewed(self, domain: str, announced: str) -> Fetched:
        """The policy as the domain has it now. Raises `FetchFailed`."""
        failed = self._failures.get(domain)
        if failed is not None and self._clock() - failed.at < PAUSE_S:
            raise FetchFailed(failed.text, failed.result)
        task = self._under_way.get(domain)
        if task is None:
            task = asyncio.create_task(self._fetch(domain, announced), name=f"mta-sts {domain}")
            self._under_way[domain] = task
            task.add_done_callback(lambda task: self._ended(domain, task))
        # When this caller is cancelled, the fetch goes on for the others.
        await asyncio.wait((task,))
        if task.cancelled():
            raise FetchFailed(f"{domain}: given up, the service ends")
        return task.result()

    def _ended(self, domain: str, task: asyncio.Task[Fetched]) -> None:
        self._under_way.pop(domain, None)
        if not task.cancelled():
            task.exception()  # those who waited were told; perhaps nobody did any more

    async def _fetch(self, domain: str, announced: str) -> Fetched:
        try:
            policy = await self._policy(domain)
        except FetchFailed as failure:
            FETCHES.labels(failure.result).inc()
            self._failures[domain] = _Failure(self._clock(), str(failure), failure.result)
            self._failures.move_to_end(domain)
            if len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)
            event(_log, INFO, "no MTA-STS policy", domain=domain, reason=str(failure))
            raise
        FETCHES.labels(TlsResult.SUCCESS).inc()
        self._failures.pop(domain, None)
        fetched = Fetched(policy, announced, self._now())
        await self._store.keep(domain, fetched)
        event(_log, INFO, "MTA-STS policy fetched", domain=domain, mode=policy.mode)
        return fetched

    async def _policy(self, domain: str) -> StsPolicy:
        octets = await self._hosts.fetch(domain)
        try:
            return parse_policy(octets)
        except InvalidPolicy as error:
            text = f"mta-sts.{domain}: not a policy: {error}"
            raise FetchFailed(text, TlsResult.STS_POLICY_INVALID) from error


def _finding(known: Fetched | None) -> StsFinding:
    if known is None or known.policy.mode is Mode.NONE:
        return NO_POLICY
    return StsFinding(known.policy)
