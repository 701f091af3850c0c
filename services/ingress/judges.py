"""The streams to policy's replicas, and which of them a question takes.

The first stream that is not busy takes it, so that questions of the same moment leave together;
what is too much for one opens another, and gRPC gives each new stream to the next replica in turn.
A stream lives for half a minute, so that all replicas have their part in the end and one that is
new is found. The old one takes questions until the new one is there.

A question whose stream ended is asked once more on another: a replica that is killed or stopped
puts no mail off while another is there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from services.ingress.heartbeat import HeartbeatLost
from services.ingress.judge_stream import JudgeStream, StreamEnded

STREAMS: Final = 4
BUSY: Final = 16
"""Questions in hand from which on a stream is busy: some milliseconds of a replica's work."""

AGE_S: Final = 30.0
"""Below a minute, which the server leaves to what runs over a connection that it ends."""

FORGOTTEN_AFTER_S: Final = 60.0
"""A policy that knows no streams is asked for one again."""

PAUSE_S: Final = 1.0
"""After a stream could not be opened, while there is another."""

LARGEST_OCTETS: Final = 128 * 1024
"""Of a request: sixteen of them fit into what policy takes. A larger one goes by a call."""


class Judges:
    """Asks policy over streams. `call` makes the call of one."""

    def __init__(
        self, call: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._clock = clock
        self._streams: list[JudgeStream] = []
        self._opening: asyncio.Task[JudgeStream] | None = None
        self._open_from = float("-inf")
        """When another stream may be opened, after one could not be."""
        self._absent_until = float("-inf")

    def take(self, request: Message) -> bool:
        """Whether a request can go this way."""
        return self._clock() >= self._absent_until and request.ByteSize() <= LARGEST_OCTETS

    async def ask(self, kind: str, request: Message, *, seconds: float) -> Any:
        """The answer to a question. Raises `Unanswered`, `HeartbeatLost`."""
        ends = self._clock() + seconds
        stream = await self._stream()
        try:
            return await stream.ask(kind, request, seconds=seconds)
        except StreamEnded:
            stream = await self._stream()
            return await stream.ask(kind, request, seconds=ends - self._clock())

    def close(self) -> None:
        """End all streams."""
        if self._opening is not None:
            self._opening.cancel()
        for stream in self._streams:
            stream.abandon()

    async def _stream(self) -> JudgeStream:
        if (stream := self._open_one()) is not None:
            return stream
        opened = await asyncio.shield(self._opening or self._open_another())
        return self._open_one() or opened

    def _open_one(self) -> JudgeStream | None:
        """The first that is not busy, or the one that is least."""
        streams = self._streams = [each for each in self._streams if each.is_open]
        if not streams:
            return None
        now = self._clock()
        chosen = next((each for each in streams if each.load < BUSY), None)
        is_wanted = len(streams) < STREAMS if chosen is None else now >= chosen.renew_at
        if is_wanted and self._opening is None and now >= self._open_from:
            self._open_another()
        return chosen or min(streams, key=lambda each: each.load)

    def _open_another(self) -> asyncio.Task[JudgeStream]:
        opening = asyncio.create_task(self._open(), name="policy-stream")
        # Perhaps nobody waits for it.
        opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._opening = opening
        return opening

    async def _open(self) -> JudgeStream:
        try:
            stream = await JudgeStream.open(self._call())
        except (StreamEnded, HeartbeatLost) as error:
            self._open_from = self._clock() + PAUSE_S
            if isinstance(error, StreamEnded) and error.code is grpc.StatusCode.UNIMPLEMENTED:
                self._absent_until = self._clock() + FORGOTTEN_AFTER_S
            raise
        finally:
            self._opening = None
        now = self._clock()
        stream.renew_at = now + AGE_S * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        place = next((n for n, each in enumerate(self._streams) if now >= each.renew_at), None)
        if place is None:
            self._streams.append(stream)
        else:
            self._streams[place].finish()
            self._streams[place] = stream
        return stream
