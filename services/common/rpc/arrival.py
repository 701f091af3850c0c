"""The arrival of a request, which is read only once it is known who sends it.

gRPC reads a request before it calls the method, however slowly it comes: unfinished requests of
strangers would fill the memory, and nothing would end them. So methods are served as if requests
came in streams, and the one request is read here. Without a token of ours few requests are read at
a time, some more wait, and others get RESOURCE_EXHAUSTED at once; every request must be there
within a deadline. One that waits costs its flow-control window, not its size.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from services.common.rpc.auth import Caller
from services.common.rpc.errors import deadline_exceeded, resource_exhausted, unreadable_request

Requests = AsyncIterator[Any]


class Arrival:
    """Reads the requests of one server."""

    def __init__(self, *, seconds: float, places: int, waiting: int) -> None:
        """`places` requests without a token are read at a time, and `waiting` may wait."""
        self._seconds = seconds
        self._reading = asyncio.Semaphore(places)
        self._places = places + waiting
        self._taken = 0

    async def request(self, requests: Requests, caller: Caller) -> Any:
        """The one request of a call. Raises `RpcFailure`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            task.cancel()

        # What asyncio.timeout does, at a quarter of its price: every call pays it.
        deadline = asyncio.get_running_loop().call_later(self._seconds, give_up)
        try:
            if caller.roles:
                return await _first(requests)
            return await self._from_stranger(requests)
        except asyncio.CancelledError:
            if not late or task.uncancel():
                raise
            text = f"the request was not there within {self._seconds:g} s"
            raise deadline_exceeded(text, reason="REQUEST_TOO_SLOW") from None
        finally:
            deadline.cancel()

    async def _from_stranger(self, requests: Requests) -> Any:
        if self._taken >= self._places:
            text = f"{self._places} requests without a token arrive already; try again"
            raise resource_exhausted(text, reason="SERVER_BUSY")
        self._taken += 1
        try:
            async with self._reading:
                return await _first(requests)
        finally:
            self._taken -= 1


async def _first(requests: Requests) -> Any:
    try:
        async for request in requests:
            return request
    except DecodeError as error:
        raise unreadable_request() from error
    # The client has gone, or gRPC refused the request for its size and said so.
    raise asyncio.CancelledError
