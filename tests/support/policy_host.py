"""An HTTPS server on loopback that answers what a test tells it to: a policy, or an attack.

    async with PolicyHost(context) as host:
        host.answer = policy_response("version: STSv1\\n...")
        ... host.port, host.requests ...

An answer is the octets of a whole response, or a function that writes to the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

Answer: TypeAlias = "bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]"


def policy_text(mode: str, *patterns: str, max_age: int = 86400) -> str:
    """A policy."""
    names = "".join(f"mx: {pattern}\r\n" for pattern in patterns)
    return f"version: STSv1\r\nmode: {mode}\r\n{names}max_age: {max_age}\r\n"


def response(
    body: str | bytes, *headers: str, status: str = "200 OK", kind: str = "text/plain"
) -> bytes:
    """A whole response."""
    octets = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(octets)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + octets


class PolicyHost:
    """The server. `requests` holds the first lines and Host fields of what it was asked, `posted`
    the types and bodies of what it was sent."""

    def __init__(self, context: ssl.SSLContext, answer: Answer = b"") -> None:
        self.answer = answer
        self.requests: list[tuple[str, str]] = []
        self.posted: list[tuple[str, bytes]] = []
        self.connections = 0
        self.port = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._context, ssl_handshake_timeout=5
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                lines = (line.partition(": ") for line in head[1:])
                fields = {name.lower(): value for name, _, value in lines}
                self.requests.append((head[0], fields["host"]))
                if length := int(fields.get("content-length", "0")):
                    body = await reader.readexactly(length)
                    self.posted.append((fields["content-type"], body))
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                    await writer.drain()
                else:
                    await self.answer(writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if not isinstance(self.answer, bytes) else writer.close()
