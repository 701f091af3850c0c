"""Waiting for what happens in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_ASK_AGAIN_S = 0.01


async def eventually(condition: Callable[[], Awaitable[object]], *, seconds: float = 30.0) -> None:
    """Return once `condition` gives something true. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(_ASK_AGAIN_S)
