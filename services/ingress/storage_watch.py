"""How full the store is: above a watermark no new mail begins (452 at MAIL).

At the hard limit of the server every publish fails, those of delivery too, and a schedule that
comes due is not fired again. So the ingress stops well below it and leaves the rest to delivery,
which makes room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

from services.common.config.smtp import Limits
from services.common.jetstream import JetStream
from services.common.log import INFO, WARNING, event
from services.common.store import StoreError

_log = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 2.0
"""Mail comes in at 100 MB a second at most: the watermark has to leave room for a few of these."""

USED_RATIO = Gauge(
    "gatepost_ingress_storage_used_ratio",
    "How much of the storage that NATS allows is in use, 0 to 1; 0 while it is not known.",
)


class StorageWatch:
    """What the last look said. `run` is a long-lived task."""

    def __init__(self, store: JetStream, limits: Callable[[], Limits]) -> None:
        self._store = store
        self._limits = limits
        self.is_full = False

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Ask now. What cannot be asked changes nothing: publishing will tell."""
        try:
            use = await self._store.storage_use()
        except StoreError:
            return
        ratio = use.used / use.limit if use.limit else 0.0
        USED_RATIO.set(ratio)
        is_full = ratio >= self._limits().storage_watermark
        if is_full != self.is_full:
            self.is_full = is_full
            text = "storage is full, no new mail" if is_full else "storage has room again"
            event(_log, WARNING if is_full else INFO, text, used=use.used, limit=use.limit)
