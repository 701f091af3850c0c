"""How long a verdict waits for the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from services.common.store import Unavailable

STORE_SECONDS = 1.5
"""The store answers in milliseconds. One that takes longer is away, and mail does not wait."""


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Turns a store that is late into one that is away. Raises `Unavailable`."""
    try:
        async with asyncio.timeout(STORE_SECONDS):
            yield
    except TimeoutError as error:
        raise Unavailable(f"no answer within {STORE_SECONDS} s") from error
