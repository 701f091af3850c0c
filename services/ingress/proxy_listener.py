"""A port whose connections are looked at as bare sockets before their session begins.

Behind a load balancer the PROXY protocol says who the client is. Its header comes before everything
else, TLS included, so it is read from the bare socket and exactly to its end. Only peers in
`proxy_protocol.trusted` are believed, and from them the header is demanded; what anybody else says
about who he is means nothing, so others are ordinary clients. Ports with implicit TLS are served
from here too, since their clients pass the gate before they do their handshake.

Life cycle: `bind`, then `accept` as a long-lived task, `close`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Counter

from services.common.config.smtp import Listener
from services.common.log import INFO, WARNING, event
from services.ingress.proxy_header import Proxied, ProxyError, ProxyHeader, canonical_address

_log = logging.getLogger(__name__)

HEADER_S: Final = 5.0
"""The proxy has the header ready when it connects."""

MAX_WAITING: Final = 1000
"""Connections whose header has not come; more wait unaccepted."""

ACCEPT_AGAIN_S: Final = 0.1

REJECTED = Counter(
    "gatepost_ingress_proxy_headers_rejected_total",
    "Connections of trusted proxies that sent no proper PROXY header in time.",
    ["listener"],
)

Serve = Callable[[socket.socket, Proxied], Awaitable[object]]
"""Takes over a connection whose client is known."""


class ProxyListener:
    """One port. `serve` starts the session."""

    def __init__(self, listener: Listener, serve: Serve) -> None:
        self._listener = listener
        self._serve = serve
        self._sockets: list[socket.socket] = []
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._opening: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []

    async def bind(self, *, backlog: int) -> int:
        """Listen; the port. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        host = self._listener.address or None
        found = await loop.getaddrinfo(
            host, self._listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        refused: OSError | None = None
        for family, kind, protocol, _, address in found:
            try:
                listening = socket.socket(family, kind, protocol)
            except OSError as error:
                # The machine knows of IPv6 but has it not, as many containers.
                refused = error
                continue
            self._sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind(address)
            listening.listen(backlog)
        if not self._sockets:
            raise refused or OSError(f"{host} has no address")
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def accept(self) -> None:
        """Take connections until closed."""
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._accept(each)) for each in self._sockets]
        try:
            await asyncio.wait(self._accepting)
        finally:
            self.close()

    def close(self) -> None:
        """Accept no more."""
        # The tasks first: a socket must not be closed while the loop watches it.
        for accepting in self._accepting:
            accepting.cancel()
        for listening in self._sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._places.release()
                # Out of file descriptors, mostly; those that are connected will leave some.
                event(_log, WARNING, "cannot accept a connection", reason=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            opening = loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        self._places.release()

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(HEADER_S):
                client = await self._client(connection)
        except (ProxyError, OSError, TimeoutError) as error:
            connection.close()
            if not self._listener.proxy_protocol.trusted:
                # Gone before it was looked at.
                return
            REJECTED.labels(self._listener.name).inc()
            event(
                _log,
                INFO,
                "no proper PROXY header",
                listener=self._listener.name,
                reason=str(error) or type(error).__name__,
            )
        else:
            await self._serve(connection, client)

    async def _client(self, connection: socket.socket) -> Proxied:
        """Who is connected. Raises `ProxyError`, `OSError`."""
        host, port, *_ = connection.getpeername()
        peer = Proxied(canonical_address(host), port)
        if not any(peer.address in network for network in self._listener.proxy_protocol.trusted):
            return peer
        loop = asyncio.get_running_loop()
        header = ProxyHeader()
        while header.wanted:
            octets = await loop.sock_recv(connection, header.wanted)
            if not octets:
                raise ProxyError("the connection ended before its PROXY header")
            header.feed(octets)
        return header.client or peer
