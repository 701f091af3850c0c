"""Messages that the server hands out: a pull consumer and what it delivers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from services.common.jetstream.translation import REQUEST_SECONDS, REQUEST_TIMEOUT_S, translated
from services.common.store import Unavailable

PULL_HEARTBEAT_S: Final = 2.5
"""How often the server says that it has nothing for us; twice this without a word: it is away."""


class Delivery:
    """A message that a consumer handed to us and that waits for our word."""

    __slots__ = ("_message", "data", "headers", "redelivered", "sequence", "subject", "time")

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.subject = message.subject
        self.data = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        metadata = message.metadata
        self.sequence = metadata.sequence.stream
        self.time = metadata.timestamp
        """When the server stored it, by the server's clock."""
        self.redelivered = metadata.num_delivered > 1
        """True: it was handed out before. False proves nothing after a crash of the server."""

    async def ack(self) -> None:
        """Done with it, and wait until the server has noted so (a double acknowledgement)."""
        with REQUEST_SECONDS.labels("ack").time(), translated():
            await self._message.ack_sync(timeout=REQUEST_TIMEOUT_S)

    async def in_progress(self) -> None:
        """Still at work: the server waits for `ack_wait` from now on."""
        with translated():
            await self._message.in_progress()

    async def give_back(self) -> None:
        """Let another worker have it at once."""
        with translated():
            await self._message.nak()


class Consumer:
    """A durable pull consumer. Pull in a loop; `close` gives back what was sent but not taken."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = ""
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._pulls = 0

    async def pull(self, count: int, *, wait_s: float) -> AsyncGenerator[Delivery, None]:
        """Ask for `count` messages and yield each as it comes; end after these or `wait_s` seconds.

        `wait_s` is at least two heartbeats; a server that is silent for so long is `Unavailable`.
        """
        if not self._client.is_connected:
            raise Unavailable("not connected to NATS")
        self._pulls += 1
        if self._subscription is None:
            # Not before: until it is connected the client does not know the inboxes of its user.
            self._inbox = self._client.new_inbox()
        reply = f"{self._inbox}.{self._pulls}"
        with translated():
            if self._subscription is None:
                self._subscription = await self._client.subscribe(
                    f"{self._inbox}.*", cb=self._arrived.put
                )
            request = {
                "batch": count,
                "expires": round(wait_s * 1e9),
                "idle_heartbeat": round(PULL_HEARTBEAT_S * 1e9),
            }
            await self._client.publish(
                self._request_subject, json.dumps(request).encode(), reply=reply
            )
        while count > 0:
            message = await self._next()
            status = (message.headers or {}).get("Status")
            if status is None:
                count -= 1
                yield Delivery(message)
            elif message.subject == reply and status in {"404", "408"}:
                return
            elif message.subject == reply and status != "100":
                raise Unavailable(f"the pull has ended: {message.headers}")

    async def _next(self) -> Msg:
        try:
            return self._arrived.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout(2 * PULL_HEARTBEAT_S):
                return await self._arrived.get()
        except TimeoutError:
            raise Unavailable("the server has fallen silent") from None

    async def close(self) -> None:
        """Take no more. What was on its way is given back, so that nobody waits for `ack_wait`."""
        if self._subscription is None:
            return
        with translated():
            await self._subscription.drain()  # type: ignore[no-untyped-call]
            while not self._arrived.empty():
                message = self._arrived.get_nowait()
                if "Status" not in (message.headers or {}):
                    await message.nak()
