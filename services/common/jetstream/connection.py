"""A connection to NATS that mends itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge

from services.common.jetstream.client import GatheringClient
from services.common.jetstream.tls_client import TlsClient
from services.common.jetstream.translation import REQUEST_ERRORS, REQUEST_TIMEOUT_S, translated
from services.common.store import NatsSettings, Unavailable

_log = logging.getLogger(__name__)

CONNECTED = Gauge(
    "gatepost_nats_connected",
    "1 while the connection to NATS stands, 0 while it does not, NaN in a process that needs none.",
)
CONNECTED.set(math.nan)
RECONNECTS = Counter("gatepost_nats_reconnects_total", "Connections to NATS that were remade.")


class Connection:
    """Connects in the background and for ever. Not started by the constructor."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self.client = GatheringClient() if settings.tls is None else TlsClient(settings.tls)
        self._context: JetStreamContext | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._on_change: list[Callable[[bool], None]] = []
        self.problem = ""
        """Why the last attempt to connect failed; blank before the first that did."""

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when the connection stands and with False when it is lost."""
        self._on_change.append(callback)

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        return self.client.is_connected

    @property
    def not_let_in(self) -> bool:
        """Whether the last attempt failed because the server wants another user or password."""
        return not self.connected and "authorization" in self.problem.lower()

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version that the connected server told; zeros while there is none."""
        if not self.client.is_connected:
            return 0, 0, 0
        version = self.client.connected_server_version
        return version.major, version.minor, version.patch

    async def start(self, *, wait_s: float = 0.0) -> None:
        """Begin to connect; wait up to `wait_s` seconds for it. Not being connected is no error."""
        CONNECTED.set(0)
        self._connecting = asyncio.create_task(self._connect(), name="nats-connect")
        if wait_s:
            await asyncio.wait({self._connecting}, timeout=wait_s)

    async def close(self) -> None:
        """Send what is buffered and close. Never raises."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self.client.close()

    async def ask(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.context_now()
        with translated():
            message = await self.client.request(
                subject, json.dumps(body).encode(), timeout=REQUEST_TIMEOUT_S
            )
            answer: dict[str, Any] = json.loads(message.data)
            if "error" in answer:
                raise nats.js.errors.APIError.from_error(answer["error"])
        return answer

    def context_now(self) -> JetStreamContext:
        if self._context is None or not self.client.is_connected:
            REQUEST_ERRORS.labels("unavailable").inc()
            raise Unavailable("not connected to NATS")
        return self._context

    async def _connect(self) -> None:
        settings = self._settings
        while True:
            try:
                await self.client.connect(
                    servers=list(settings.urls),
                    name=settings.client_name,
                    user=settings.username or None,
                    password=self._password if settings.password_file else None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=5,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=0,
                    inbox_prefix=inbox_prefix(settings.username),
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=_nothing,
                )
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self.problem = str(error) or type(error).__name__
                _log.warning("NATS is not reachable yet: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1)
            else:
                break
        self._context = JetStreamContext(self.client, timeout=REQUEST_TIMEOUT_S)
        self._changed(connected=True)

    def _password(self) -> str:
        if self._settings.password_file is None:
            return ""
        return self._settings.password_file.read_text(encoding="utf-8").strip()

    async def _on_error(self, error: Exception) -> None:
        self.problem = str(error) or type(error).__name__
        _log.warning("NATS: %s: %s", type(error).__name__, error)

    async def _on_disconnected(self) -> None:
        if not self.client.is_closed:
            _log.warning("the connection to NATS is lost")
        self._changed(connected=False)

    async def _on_reconnected(self) -> None:
        RECONNECTS.inc()
        _log.info("the connection to NATS stands again")
        self._changed(connected=True)

    def _changed(self, *, connected: bool) -> None:
        CONNECTED.set(int(connected))
        for callback in self._on_change:
            callback(connected)


def inbox_prefix(username: str) -> str:
    """Where answers to this user come: of its own, so that a server can keep others from reading.

    A name that cannot be a part of a subject has to do with the place that all users share.
    """
    return f"_INBOX.{username}" if re.fullmatch(r"[A-Za-z0-9_-]+", username) else "_INBOX"


async def _nothing() -> None:
    """nats-py wants a coroutine for each event, those that nobody needs included."""
