"""What exchanges said before, in the KV bucket `callouts`, for all replicas.

Only answers are kept, never that there was none. How long one counts is configured; the time of the
asking is stored with it, so that a changed setting counts at once. The bucket itself drops what is
older than its `max_age`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.common.jetstream import Bucket, JetStream
from services.common.mail.address import Mailbox
from services.common.store import StoreError, Unavailable
from services.policy.account import account_key
from services.policy.store_deadline import in_time

BUCKET = "callouts"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer of before."""

    takes: bool
    host: str
    reply: str
    asked: datetime


class CalloutMemory:
    """Answers by address. A store that is away remembers nothing and is no error."""

    def __init__(
        self, store: JetStream, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._bucket: Bucket | None = None
        self.now = now

    async def recall(
        self, sender: Mailbox, *, positive: timedelta, negative: timedelta
    ) -> Known | None:
        """What was said about this address within the time that counts."""
        try:
            async with in_time():
                bucket = await self._open()
                found = await bucket.get(_key(sender))
        except StoreError:
            return None
        known = None if found is None else _decoded(found[0])
        if known is None:
            return None
        age = self.now() - known.asked
        return known if age < (positive if known.takes else negative) else None

    async def keep(self, sender: Mailbox, known: Known) -> None:
        """Remember an answer."""
        value = {
            "takes": known.takes,
            "host": known.host,
            "reply": known.reply,
            "asked": known.asked.isoformat(),
        }
        try:
            async with in_time():
                bucket = await self._open()
                await bucket.put(_key(sender), json.dumps(value).encode())
        except StoreError:
            return

    async def _open(self) -> Bucket:
        if not self._store.connected:
            raise Unavailable("not connected to NATS")
        if self._bucket is None:
            self._bucket = await self._store.bucket(BUCKET)
        return self._bucket


def _key(sender: Mailbox) -> str:
    """Encoded as an account's: letter case is folded, which for other people's mailboxes is a guess
    that every mail system makes."""
    return account_key(sender)


def _decoded(data: bytes) -> Known | None:
    try:
        fields = json.loads(data)
        asked = datetime.fromisoformat(fields["asked"])
        return Known(bool(fields["takes"]), str(fields["host"]), str(fields["reply"]), asked)
    except (KeyError, TypeError, ValueError):
        return None
