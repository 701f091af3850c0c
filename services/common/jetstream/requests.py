"""Questions to the server, each with its answer on an inbox of ours.

In place of nats-py's own `request`, which makes a random name for each question and takes twice as
long: 10 µs of CPU without the publishing, where this takes 4.5.

Guarantees: each question is answered, or raises one of nats-py's exceptions within its time. An
answer that comes too late is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

_NOBODY_LISTENS: Final = "503"


class Requests:
    """The questions over one connection. All answers come to one subscription."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    async def ask(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Msg:
        """Publish and wait for the answer."""
        if not self._inbox:
            # Not before: until it is connected the client does not know the inboxes of its user.
            inbox = self._client.new_inbox()
            await self._client.subscribe(f"{inbox}.*", cb=self._answered)
            self._inbox = inbox
        self._asked += 1
        reply = f"{self._inbox}.{self._asked}"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        self._waiting[reply] = answer
        timer = loop.call_later(timeout_s, _run_out, answer)
        try:
            await self._client.publish(
                subject, data, reply=reply, headers=dict(headers) if headers else None
            )
            message = await answer
        finally:
            timer.cancel()
            del self._waiting[reply]
        if message.headers and message.headers.get("Status") == _NOBODY_LISTENS:
            raise nats.errors.NoRespondersError
        return message

    async def _answered(self, message: Msg) -> None:
        answer = self._waiting.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)


def _run_out(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(nats.errors.TimeoutError())
