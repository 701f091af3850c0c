"""One stream of questions to one replica of policy, and the answers that come back on it.

A call costs both sides more than most verdicts do; a question on a stream that is open costs a
fraction of that, and those of the same moment leave in one message.

Life cycle: `open` (a greeting was answered, so somebody is there) → questions → `finish` (what was
asked is still answered) or the end of the stream, which every question in hand hears of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any, Final, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from gatepost.policy.v1.policy_pb2 import JudgeRequest, JudgeResponse, QuestionAnswer
from services.common.rounds import a_moment
from services.ingress.heartbeat import HEALTH_DEADLINE_S, PATIENCE_S, Heartbeat, HeartbeatLost

OPEN_DEADLINE_S: Final = PATIENCE_S + HEALTH_DEADLINE_S
"""To reach a replica and hear from it; as long as a call would wait for a sign of life."""

BATCH: Final = 16
"""Questions in one message: the replica begins them together, and others wait meanwhile."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Unanswered(Exception):
    """A question got a status in the place of an answer."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


class StreamEnded(Unanswered):
    """The stream ended before the answer came."""


class JudgeStream:
    """A stream that is open, or has ended."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._waiting: dict[int, asyncio.Future[QuestionAnswer]] = {}
        self._number = 0
        self._requests: deque[JudgeRequest] = deque([JudgeRequest()])  # the greeting
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self._heartbeat = Heartbeat(self._is_alive)
        self._tasks = (
            asyncio.create_task(self._read(), name="policy-answers"),
            asyncio.create_task(self._write(), name="policy-questions"),
        )
        self.is_open = True
        """Whether it takes questions."""
        self.renew_at = float("inf")
        """When another should take its place."""
        self._ended: grpc.StatusCode | None = None

    @classmethod
    async def open(cls, call: Any) -> Self:
        """Over a call that was just made. Raises `StreamEnded`, `HeartbeatLost`."""
        stream = cls(call)
        stream._wake.set()
        try:
            if not await stream._hears_within(OPEN_DEADLINE_S):
                raise HeartbeatLost
        except (HeartbeatLost, asyncio.CancelledError):
            stream.abandon()
            raise
        if stream._ended is not None:
            raise StreamEnded(stream._ended)
        return stream

    @property
    def load(self) -> int:
        """Questions that wait for their answers."""
        return len(self._waiting)

    async def ask(self, kind: str, request: Message, *, seconds: float) -> Any:
        """The answer to a question of this kind. Raises `Unanswered`, `HeartbeatLost`."""
        loop = asyncio.get_running_loop()
        self._number += 1
        number = self._number
        answering = self._waiting[number] = loop.create_future()
        question = self._last_request().questions.add(
            number=number, timeout_ms=max(int(seconds * 1000), 1)
        )
        getattr(question, kind).CopyFrom(request)
        self._wake.set()
        deadline = loop.call_later(seconds, _expire, answering)
        try:
            with self._heartbeat.watched(answering):
                answer = await answering
        except HeartbeatLost:
            self.abandon()
            raise
        finally:
            deadline.cancel()
            if self._waiting.pop(number, None) is not None:
                self._last_request().withdrawn.append(number)
                self._wake.set()
        if answer.HasField("failure"):
            code = _CODES.get(answer.failure.code, grpc.StatusCode.UNKNOWN)
            raise Unanswered(code)
        return getattr(answer, kind)

    def finish(self) -> None:
        """Take no more questions, and end when those in hand are answered."""
        self.is_open = False
        self._wake.set()

    def abandon(self) -> None:
        """End now: whoever waits for an answer hears of it."""
        self.is_open = False
        self._call.cancel()

    def _last_request(self) -> JudgeRequest:
        """The one that goes out next, or after those that are full."""
        if self._requests and 0 < len(self._requests[-1].questions) < BATCH:
            return self._requests[-1]
        self._requests.append(JudgeRequest())
        return self._requests[-1]

    async def _is_alive(self) -> bool:
        self._heard.clear()
        self._requests.append(JudgeRequest())
        self._wake.set()
        return await self._hears_within(HEALTH_DEADLINE_S)

    async def _hears_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            return False
        return True

    async def _write(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader learns why
            while self.is_open or self._waiting:
                await self._wake.wait()
                self._wake.clear()
                await a_moment()
                while self._requests:
                    await self._call.write(self._requests.popleft())
            await self._call.done_writing()

    async def _read(self) -> None:
        code = grpc.StatusCode.UNAVAILABLE
        try:
            while isinstance(response := await self._call.read(), JudgeResponse):
                self._hear(response)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        finally:
            self._end(code)

    def _hear(self, response: JudgeResponse) -> None:
        self._heard.set()
        for answer in response.answers:
            answering = self._waiting.pop(answer.number, None)
            if answering is not None and not answering.done():
                answering.set_result(answer)
        if response.closing or not self.is_open:
            self.finish()

    def _end(self, code: grpc.StatusCode) -> None:
        self.is_open = False
        self._ended = code
        self._heard.set()
        self._wake.set()
        waiting, self._waiting = self._waiting, {}
        for answering in waiting.values():
            if not answering.done():
                answering.set_exception(StreamEnded(code))


def _expire(answering: asyncio.Future[QuestionAnswer]) -> None:
    if not answering.done():
        answering.set_exception(Unanswered(grpc.StatusCode.DEADLINE_EXCEEDED))
