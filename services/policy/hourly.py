"""Counts by the hour that all replicas share, in a KV bucket: one key for each thing counted.

A key holds the hour and the count, and begins anew with the next hour: nothing has to be removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from services.common.jetstream import Bucket
from services.common.store import Conflict
from services.policy.store_deadline import in_time

MAX_TRIES = 50
"""Others count in the same place at the same moment; each round one of them succeeds."""


class HourlyCounts:
    """Counters in a bucket that `opened` gives. Raises `StoreError` where it cannot be asked."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Bucket]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._opened = opened
        self._now = now

    async def count(self, key: str) -> int:
        """How often this was counted in the hour that runs."""
        return (await self._read(key))[0]

    async def take(self, key: str, *, limit: int) -> bool:
        """Count once more, unless the limit is reached; whether there was room."""
        for _ in range(MAX_TRIES):
            count, revision = await self._read(key)
            if count >= limit:
                return False
            if await self._write(key, count + 1, revision):
                return True
        return False

    async def _read(self, key: str) -> tuple[int, int]:
        """The count and the revision of its key, 0 where there is none."""
        bucket = await self._opened()
        async with in_time():
            found = await bucket.get(key)
        if found is None:
            return 0, 0
        hour, _, count = found[0].decode("ascii", errors="replace").partition(" ")
        current = hour == self._hour() and count.isdigit()
        return (int(count) if current else 0), found[1]

    async def _write(self, key: str, count: int, revision: int) -> bool:
        bucket = await self._opened()
        value = f"{self._hour()} {count}".encode()
        try:
            async with in_time():
                if revision:
                    await bucket.update(key, value, revision=revision)
                else:
                    await bucket.create(key, value)
        except Conflict:
            return False
        return True

    def _hour(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H")
