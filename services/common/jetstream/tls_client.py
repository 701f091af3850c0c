"""nats-py's client over TLS, with what it lacks: files that are read anew, no word in clear, and
another attempt after a handshake that failed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from typing import Final

import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Srv
from nats.aio.transport import TcpTransport

from services.common.jetstream.client import GatheringClient
from services.common.store import NatsTls

_CLOSE_TIMEOUT_S: Final = 1.0


class TlsClient(GatheringClient):
    """Reads the TLS files for each connection that it tries, so that they can be exchanged."""

    def __init__(self, tls: NatsTls) -> None:
        super().__init__()
        self._tls = tls

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Asked for by nats-py in each attempt. Raises `OSError`, which is one that failed."""
        tls = self._tls
        context = ssl.create_default_context(cafile=tls.authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        return context

    async def _connect_to_server(self, s: Srv) -> None:
        s.last_attempt = time.monotonic()
        self._transport = self._transport or _Transport()  # type: ignore[no-untyped-call]
        await self._transport.connect(
            s.uri,
            buffer_size=DEFAULT_BUFFER_SIZE,
            connect_timeout=self.options["connect_timeout"],
        )

    def _connect_command(self) -> bytes:
        """What says our name and password. nats-py encrypts only if the server asks for it, so one
        that does not, or somebody in between, would be told them in clear."""
        if not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS")
        return super()._connect_command()


class _Transport(TcpTransport):
    """Does not wait for ever when a handshake failed.

    asyncio then never tells the stream that lay below that it is closed, nats-py waits for that,
    and no further attempt would be made.
    """

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await super().wait_closed()  # type: ignore[no-untyped-call]
