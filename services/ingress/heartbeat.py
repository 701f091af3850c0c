"""Telling a service that is slow with one question from a service that is gone.

A check may take long: how long, the sender's DNS servers decide. So calls have long deadlines, and
a call that is not answered soon has the service's health asked for beside it. If that is not
answered either, nobody is there, and all calls that wait are given up at once. Were a slow check
taken for an absent policy, a stranger with a slow name server could have all mail put off, or taken
unjudged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

PATIENCE_S: Final = 1.25
"""A call that takes longer has the health asked for, again and again in this interval."""

HEALTH_DEADLINE_S: Final = 0.5


class HeartbeatLost(Exception):
    """The service shows no sign of life."""


def health(channel: grpc.aio.Channel) -> Callable[[], Awaitable[bool]]:
    """Asks whether the service behind a channel is alive."""
    check = HealthStub(channel).Check  # type: ignore[attr-defined]

    async def is_alive() -> bool:
        try:
            await check(HealthCheckRequest(), timeout=HEALTH_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            # Whatever else it answers, it answers.
            gone = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return error.code() not in gone
        return True

    return is_alive


class Heartbeat:
    """Calls, or questions, under way at one service. `is_alive` tells within half a second."""

    def __init__(self, is_alive: Callable[[], Awaitable[bool]]) -> None:
        self._is_alive = is_alive
        self._slow: set[Any] = set()
        self._given_up: set[Any] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self, call: Any) -> Iterator[Any]:
        """Watch a call while it is awaited. Raises `HeartbeatLost` in the place of its answer."""
        # A timer costs a microsecond where `asyncio.wait` costs a task.
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._is_slow, call)
        try:
            yield call
        except asyncio.CancelledError:
            if call not in self._given_up:
                raise
            raise HeartbeatLost from None
        finally:
            timer.cancel()
            self._slow.discard(call)
            self._given_up.discard(call)

    def _is_slow(self, call: Any) -> None:
        self._slow.add(call)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="policy-heartbeat")

    async def _look(self) -> None:
        """Ask for the health as long as calls are slow."""
        try:
            while self._slow:
                waiting = set(self._slow)
                if not await self._is_alive():
                    self._give_up(waiting)
                await asyncio.sleep(PATIENCE_S if self._slow else 0)
        finally:
            self._looking = None

    def _give_up(self, calls: set[Any]) -> None:
        for call in calls & self._slow:
            self._given_up.add(call)
            call.cancel()
