"""Questions to NATS and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.common.jetstream.requests import Requests


class _Client:
    """A connection that publishes nowhere."""

    def __init__(self) -> None:
        self.subscriptions: list[str] = []
        self.replies: list[str] = []
        self._asked = asyncio.Condition()
        self._answered: Callable[[Msg], Awaitable[None]] | None = None

    def new_inbox(self) -> str:
        return "_INBOX.someone"

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> None:
        self.subscriptions.append(subject)
        self._answered = cb

    async def publish(self, subject: str, data: bytes, *, reply: str, headers: object) -> None:
        async with self._asked:
            self.replies.append(reply)
            self._asked.notify_all()

    async def asked(self, count: int) -> None:
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.replies) >= count)

    async def answer(self, number: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        assert self._answered is not None
        await self._answered(Msg(cast(Any, self), self.replies[number], "", data, headers))


def _requests(client: _Client) -> Requests:
    return Requests(cast(Client, client))


async def test_each_question_has_its_own_answer() -> None:
    client = _Client()
    requests = _requests(client)
    first = asyncio.create_task(requests.ask("a", timeout_s=60))
    await client.asked(1)
    second = asyncio.create_task(requests.ask("b", timeout_s=60))
    await client.asked(2)
    await client.answer(1, b"to the second")
    await client.answer(0, b"to the first")
    assert ((await first).data, (await second).data) == (b"to the first", b"to the second")
    assert client.subscriptions == ["_INBOX.someone.*"]


async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    client = _Client()
    requests = _requests(client)
    with pytest.raises(nats.errors.TimeoutError):
        await requests.ask("a", timeout_s=0.001)
    await client.answer(0, b"late")
    question = asyncio.create_task(requests.ask("a", timeout_s=60))
    await client.asked(2)
    await client.answer(1, b"in time")
    assert (await question).data == b"in time"


async def test_nobody_who_listens_is_an_error() -> None:
    client = _Client()
    question = asyncio.create_task(_requests(client).ask("a", timeout_s=60))
    await client.asked(1)
    await client.answer(0, b"", {"Status": "503"})
    with pytest.raises(nats.errors.NoRespondersError):
        await question
