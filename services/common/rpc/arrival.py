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

import grpc.aio
from google.protobuf.message import DecodeError

from services.common.rpc.auth import Access
from services.common.rpc.errors import deadline_exceeded, invalid_argument, resource_exhausted

Context = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[Any]


class Arrival:
    """Reads the requests of one server."""

    def __init__(self, access: Access, *, seconds: float, places: int, waiting: int) -> None:
        """`places` requests without a token are read at a time, and `waiting` may wait."""
        self._access = access
        self._seconds = seconds
        self._reading = asyncio.Semaphore(places)
        self._places = places + waiting
        self._taken = 0

    async def request(self, requests: Requests, context: Context) -> Any:
        """The one request of a call. Raises `RpcFailure`."""
        deadline = asyncio.timeout(self._seconds)
        try:
            async with deadline:
                if self._access.is_known(context):
                    return await _first(requests)
                return await self._from_stranger(requests)
        except TimeoutError:
            if not deadline.expired():
                raise
            text = f"the request was not there within {self._seconds:g} s"
            raise deadline_exceeded(text, reason="REQUEST_TOO_SLOW") from None

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
        text = "the request is not in the form that the protos define"
        raise invalid_argument(text, reason="INVALID_REQUEST") from error
    # The client has gone, or gRPC refused the request for its size and said so.
    raise asyncio.CancelledError
