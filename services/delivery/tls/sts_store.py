"""MTA-STS policies that were fetched, in the bucket `mta_sts`, for all replicas: RFC 8461 §3.3.

An entry counts until its policy's `max_age` has passed since the fetch. It is replaced by a policy
that was fetched later and never removed because a fetch failed: whoever stands between us and the
domain must not be able to make us forget (§10.2). The bucket drops what is older than any policy
may be.

Each process remembers what it read for `REMEMBER_S` seconds, so that mail does not cost a question
to the store; what another replica fetched meanwhile is noticed by its id.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.common.jetstream import Bucket, JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.delivery.tls.sts_policy import MAX_AGE, Mode, StsPolicy

BUCKET: Final = "mta_sts"
REMEMBER_S: Final = 60.0
MAX_REMEMBERED: Final = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A policy, the id of the record that announced it, and when it was fetched."""

    policy: StsPolicy
    id: str
    at: datetime

    def is_in_force(self, now: datetime) -> bool:
        """Whether it still counts. A clock that went back makes nothing older."""
        return now < self.at + self.policy.max_age


class StsStore:
    """The policies by domain."""

    def __init__(
        self, store: JetStream, *, now: Callable[[], datetime], clock: Callable[[], float]
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._store = store
        self._now = now
        self._clock = clock
        self._bucket: Bucket | None = None
        self._remembered: OrderedDict[str, tuple[float, Fetched | None]] = OrderedDict()

    async def recall(self, domain: str, *, wanted_id: str = "") -> Fetched | None:
        """The policy that is in force. What is remembered is good enough unless it has another id
        than the one that is wanted; so it is while the store is away. Raises `StoreError`."""
        at, known = self._remembered.get(domain, (0.0, None))
        fresh = domain in self._remembered and self._clock() - at < REMEMBER_S
        if not fresh or (wanted_id and (known is None or known.id != wanted_id)):
            try:
                known = await self._read(domain)
            except StoreError:
                if known is None:
                    raise
            else:
                self._remember(domain, known)
        return known if known is not None and known.is_in_force(self._now()) else None

    async def keep(self, domain: str, fetched: Fetched) -> None:
        """Keep a policy. If the store is away, for this process alone."""
        self._remember(domain, fetched)
        value = {
            "id": fetched.id,
            "fetched": fetched.at.isoformat(),
            "mode": fetched.policy.mode,
            "mx": fetched.policy.patterns,
            "max_age": int(fetched.policy.max_age.total_seconds()),
        }
        try:
            bucket = await self._opened()
            await bucket.put(_key(domain), json.dumps(value).encode())
        except StoreError as error:
            event(_log, INFO, "MTA-STS policy not stored", domain=domain, reason=str(error))

    async def _read(self, domain: str) -> Fetched | None:
        bucket = await self._opened()
        found = await bucket.get(_key(domain))
        return None if found is None else _decoded(domain, found[0])

    def _remember(self, domain: str, fetched: Fetched | None) -> None:
        self._remembered[domain] = (self._clock(), fetched)
        self._remembered.move_to_end(domain)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _opened(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self._store.bucket(BUCKET)
        return self._bucket


def _key(domain: str) -> str:
    return domain.encode().hex()


def _decoded(domain: str, value: bytes) -> Fetched | None:
    """The entry; None, with a warning, for what is none."""
    try:
        entry = json.loads(value)
        policy = StsPolicy(
            Mode(entry["mode"]),
            tuple(str(pattern) for pattern in entry["mx"]),
            min(timedelta(seconds=int(entry["max_age"])), MAX_AGE),
        )
        at = datetime.fromisoformat(entry["fetched"])
        if at.tzinfo is None:
            raise ValueError("the time has no zone")
        return Fetched(policy, str(entry["id"]), at)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        event(_log, WARNING, "not an MTA-STS policy", domain=domain, reason=str(error))
        return None
