"""The ports that clients connect to: bound at the start, closed first when the process stops.

Life cycle: `start` binds every listener of `smtp.listeners` or raises `StartError`; `drain` closes
the ports, lets the sessions finish what they have in hand, and returns when all are gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final

from services.common.config.smtp import Listener, TlsMode
from services.common.log import INFO, WARNING, event
from services.common.start import StartError, bind_error
from services.common.tls import ServerTls
from services.ingress.dialogue import Edge
from services.ingress.engine import Engine
from services.ingress.gate import Gate, Visitor
from services.ingress.handshake import Handshake
from services.ingress.proxy_header import Proxied
from services.ingress.proxy_listener import ProxyListener

_log = logging.getLogger(__name__)

BACKLOG: Final = 1024
"""Connections that wait to be accepted: a burst of a second."""

ABORT_MARGIN_S: Final = 1.0
"""Left of the grace period for ending the sessions that would not."""


Spawn = Callable[[str, Coroutine[Any, Any, None]], object]


class Listeners:
    """All listeners of the process."""

    def __init__(self, edge: Edge, gate: Gate, tls: ServerTls | None) -> None:
        self._edge = edge
        self._gate = gate
        self._tls = tls
        self._servers: list[asyncio.Server | ProxyListener] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self.ports: dict[str, int] = {}
        """The port of each listener, by its name."""

    async def start(self, spawn: Spawn) -> None:
        """Bind all of them; `spawn` runs their long-lived tasks. Raises `StartError`."""
        for index, listener in enumerate(self._edge.config.smtp.listeners):
            setting = f"smtp.listeners.{index}.port"
            try:
                port = await self._bind(listener, setting, spawn)
            except OSError as error:
                host = listener.address or "*"
                raise bind_error(setting, host=host, port=listener.port, error=error) from error
            self.ports[listener.name] = port
            event(
                _log,
                INFO,
                "listening",
                listener=listener.name,
                address=listener.address or "*",
                port=port,
                role=listener.role,
                tls=listener.tls,
            )

    async def drain(self, *, grace_s: float) -> None:
        """Accept no more, let everybody finish, within the grace period."""
        for server in self._servers:
            server.close()
        await self._gate.drain(patience_s=max(0.0, grace_s - ABORT_MARGIN_S))

    async def _bind(self, listener: Listener, setting: str, spawn: Spawn) -> int:
        implicit = self._implicit(listener, setting)
        starttls = self._starttls(listener)
        loop = asyncio.get_running_loop()

        def session(proxied: Proxied | None = None, entered: Visitor | None = None) -> Engine:
            return Engine(
                self._edge,
                self._gate,
                listener,
                tls=starttls,
                loop=loop,
                proxied=proxied,
                entered=entered,
            )

        if implicit is None and not listener.proxy_protocol.trusted:
            server = await loop.create_server(
                session, listener.address or None, listener.port, backlog=BACKLOG
            )
            self._servers.append(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        async def serve(connection: socket.socket, client: Proxied) -> None:
            if implicit is None:
                await loop.connect_accepted_socket(lambda: session(client), connection)
                return
            # As a task of its own: the gate says how many there may be, not the listener.
            handshake = Handshake(self._gate, listener, client).run(
                connection,
                implicit,
                lambda entered: session(client, entered),
                self._edge.config.smtp.limits,
            )
            task = loop.create_task(handshake)
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

        proxy = ProxyListener(listener, serve)
        self._servers.append(proxy)
        bound = await proxy.bind(backlog=BACKLOG)
        spawn(f"listener-{listener.name}", proxy.accept())
        return bound

    def _implicit(self, listener: Listener, setting: str) -> ssl.SSLContext | None:
        if listener.tls is not TlsMode.IMPLICIT:
            return None
        if self._tls is None:
            raise StartError(f"{setting}: implicit TLS needs smtp.tls.certificate_file")
        return self._tls.context

    def _starttls(self, listener: Listener) -> ssl.SSLContext | None:
        if listener.tls is not TlsMode.STARTTLS:
            return None
        if self._tls is None:
            event(
                _log,
                WARNING,
                "no certificate: STARTTLS is not offered",
                listener=listener.name,
            )
            return None
        return self._tls.context
