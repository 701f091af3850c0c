"""One stream of questions and answers (`Judge`): a call of its own costs more than most verdicts.

Each question is judged by a task of its own, as if it had come by a call: it takes a place of the
budget, and what goes wrong with it is its own answer. Answers that are ready in the same round of
the loop leave together.

Life cycle: questions are read until the client ends its side; when those in hand are answered, the
stream ends. A client that goes away takes its questions with it. A replica that stops says so, and
answers what comes until the client has ended its side.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError

from gatepost.policy.v1 import policy_pb2 as pb
from services.common.rpc.errors import RpcFailure, invalid_argument, unreadable_request

MAX_QUESTIONS: Final = 64
"""In one request. They are begun in the same round of the loop, and others wait meanwhile."""

BATCH_OCTETS: Final = 256 * 1024
"""A response that has become as large takes no further answer."""

UNSENT: Final = 16
"""Responses from which on no further request is read: whoever asks has to take the answers."""

Answer = Callable[[Any, Any], Awaitable[Any]]


class Asker:
    """Who waits for one question's answer: as much of a call's context as a method needs."""

    def __init__(self, timeout_ms: int) -> None:
        self._ends = time.monotonic() + timeout_ms / 1000 if timeout_ms else None

    def time_remaining(self) -> float | None:
        """Seconds; none if the client set no limit."""
        return None if self._ends is None else self._ends - time.monotonic()

    def cancelled(self) -> bool:
        """A task that answers a question is cancelled by the one who asked, or with the stream."""
        return True


class Conversation:
    """One stream. `answer`: what answers a question, by the name of its kind."""

    def __init__(self, answer: Mapping[str, Answer]) -> None:
        self._answer = answer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._responses: deque[pb.JudgeResponse] = deque()
        self._octets = 0
        """Of the last response, about."""
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def stop(self) -> None:
        """Tell the client to ask elsewhere."""
        self._send(pb.JudgeResponse(closing=True))

    async def responses(
        self, requests: AsyncIterator[pb.JudgeRequest]
    ) -> AsyncGenerator[pb.JudgeResponse, None]:
        """Until all is answered. Raises `RpcFailure` for a request that breaks the rules."""
        reading = asyncio.create_task(self._read(requests), name="questions")
        reading.add_done_callback(lambda _: self._changed.set())
        try:
            while not reading.done() or self._tasks or self._responses:
                await self._changed.wait()
                self._changed.clear()
                if reading.done():
                    reading.result()  # or what it failed with
                while self._responses:
                    yield self._responses.popleft()
                    self._has_room.set()
        finally:
            for task in (reading, *self._tasks.values()):
                task.cancel()

    async def _read(self, requests: AsyncIterator[pb.JudgeRequest]) -> None:
        try:
            async for request in requests:
                self._take(request)
                await self._has_room.wait()
        except DecodeError as error:
            raise unreadable_request() from error

    def _take(self, request: pb.JudgeRequest) -> None:
        if len(request.questions) > MAX_QUESTIONS:
            text = f"questions: at most {MAX_QUESTIONS}, not {len(request.questions)}"
            raise invalid_argument(text, reason="INVALID_REQUEST")
        for question in request.questions:
            if question.number in self._tasks:
                text = f"questions: number {question.number} is in use"
                raise invalid_argument(text, reason="INVALID_REQUEST")
            task = asyncio.create_task(self._judge(question))
            self._tasks[question.number] = task
        for number in request.withdrawn:
            if (withdrawn := self._tasks.pop(number, None)) is not None:
                withdrawn.cancel()
        if not (request.questions or request.withdrawn):
            self._send(pb.JudgeResponse())

    async def _judge(self, question: pb.Question) -> None:
        try:
            kind = question.WhichOneof("request")
            if kind is None:
                raise invalid_argument("request: missing", reason="INVALID_REQUEST")
            asker = Asker(question.timeout_ms)
            response = await self._answer[kind](getattr(question, kind), asker)
            answer = self._place(response.ByteSize())
            answer.number = question.number
            getattr(answer, kind).CopyFrom(response)
        except RpcFailure as failure:
            answer = self._place(0)
            answer.number = question.number
            answer.failure.code = failure.code.value[0]
            answer.failure.text = failure.text
            answer.failure.reason = failure.reason
        finally:
            if self._tasks.get(question.number) is asyncio.current_task():
                del self._tasks[question.number]
            self._changed.set()

    def _place(self, octets: int) -> pb.QuestionAnswer:
        """In the response that goes out next."""
        if not self._responses or self._octets + octets > BATCH_OCTETS:
            self._send(pb.JudgeResponse())
            self._octets = 0
        self._octets += octets
        return self._responses[-1].answers.add()

    def _send(self, response: pb.JudgeResponse) -> None:
        self._responses.append(response)
        self._octets = BATCH_OCTETS
        self._changed.set()
        if len(self._responses) >= UNSENT:
            self._has_room.clear()
