"""Somebody who listens to a key store."""

from __future__ import annotations

import asyncio
from typing import Any

from services.keys.store import KeyStore, News

_WAIT_SECONDS = 30.0


class Follower:
    """All news of a store, in order. `close` it."""

    def __init__(self, store: KeyStore) -> None:
        self.news: asyncio.Queue[News] = asyncio.Queue()
        self._task = asyncio.create_task(store.follow(self.news.put_nowait))

    async def next(self, kind: type[News]) -> Any:
        """The next news of this kind; the others before it are skipped."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                found = await self.news.get()
                if isinstance(found, kind):
                    return found

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()
