"""nats-py's client, which sends what is said in the same moment in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

from nats.aio.client import Client

from services.common.rounds import a_moment


class GatheringClient(Client):
    """Sends a moment after the first word: records, acknowledgements and events of many mails leave
    with one system call, and wake the server once.

    What was not sent when a connection is lost is not sent over the next one: by then somebody may
    have been told that it failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sending: asyncio.Task[None] | None = None

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Called by nats-py for all that it has put into its buffer."""
        if force_flush:
            return await super()._flush_pending(force_flush)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="nats-send")
        return None

    async def _send(self) -> None:
        await a_moment()
        await super()._flush_pending()

    async def _attempt_reconnect(self) -> None:
        self._pending, self._pending_data_size = [], 0
        await super()._attempt_reconnect()
