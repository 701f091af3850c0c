"""A connection to a port with implicit TLS, until the client has done its handshake.

It passes the gate first, as every connection does: a handshake that never ends costs as much as a
session, and clients that only connect must not be more than clients may be. One that there is no
room for is closed without a word, since it would understand none before its handshake.

Life cycle: `run` is the task of one connection. It ends with a session that has the connection's
place at the gate, or with the connection closed and the place free.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from services.common.config.smtp import Limits, Listener, Role
from services.common.log import INFO, event
from services.ingress.gate import Address, Gate, Visitor
from services.ingress.proxy_header import Proxied

_log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 15.0
"""A TLS handshake; it takes three round trips at most."""

Start = Callable[[Visitor], asyncio.Protocol]
"""Makes the session that takes over a visitor's place."""


class Handshake:
    """One connection, as the gate sees it."""

    def __init__(self, gate: Gate, listener: Listener, client: Proxied) -> None:
        self._gate = gate
        self._listener = listener
        self._client = client
        self._task: asyncio.Task[object] | None = None

    @property
    def address(self) -> Address:
        """The client's address."""
        return self._client.address

    @property
    def listener_name(self) -> str:
        """Where it came in."""
        return self._listener.name

    @property
    def is_server(self) -> bool:
        """Whether it came to a port for mail between servers."""
        return self._listener.role is Role.MX

    def drain(self) -> None:
        """No mail is in hand."""
        self.abort()

    def abort(self) -> None:
        """Give the handshake up."""
        if self._task is not None:
            self._task.cancel()

    async def run(
        self, connection: socket.socket, context: ssl.SSLContext, start: Start, limits: Limits
    ) -> None:
        """Do the handshake. The connection is this method's to close. Never raises."""
        if self._gate.enter(self, limits) is not None:
            connection.close()
            self._leave("excess")
            return
        self._task = asyncio.current_task()
        reason = ""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: start(self),
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except (OSError, TimeoutError) as error:
            reason = str(error)
        finally:
            self._task = None
            # Not if the handshake was done and the session has ended already.
            if self in self._gate:
                self._leave("drained" if self._gate.is_draining else "tls", reason)

    def _leave(self, end: str, reason: str = "") -> None:
        self._gate.leave(self, end)
        event(
            _log,
            INFO,
            "no TLS handshake",
            end=end,
            listener=self.listener_name,
            client=str(self.address),
            reason=reason,
        )
