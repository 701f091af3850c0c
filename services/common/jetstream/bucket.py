"""A key-value bucket."""

from __future__ import annotations

import nats.js.errors
from nats.js.kv import KeyValue

from services.common.jetstream.translation import translated
from services.common.store import Missing


class Bucket:
    """A key-value bucket. Keys must be made of [A-Za-z0-9_=/-] and dots between tokens."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision; None when there is no such key."""
        try:
            with translated():
                entry = await self._bucket.get(key)
        except Missing:
            return None
        return entry.value or b"", entry.revision or 0

    async def create(self, key: str, value: bytes) -> int:
        """Store a key that must not exist. Raises `Conflict` when it does."""
        with translated():
            return await self._bucket.create(key, value)

    async def put(self, key: str, value: bytes) -> int:
        """Store a key, whether it exists or not."""
        with translated():
            return await self._bucket.put(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Replace the value that had this revision. Raises `Conflict` when it has another."""
        with translated():
            return await self._bucket.update(key, value, last=revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key; with `revision` only if it still has that one."""
        with translated():
            await self._bucket.delete(key, last=revision)

    async def keys(self) -> list[str]:
        """All keys, sorted."""
        with translated():
            try:
                return sorted(await self._bucket.keys())
            except nats.js.errors.NoKeysError:
                return []
