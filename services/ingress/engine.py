"""The session engine: aiosmtpd's `SMTP` protocol, and all that has to be otherwise with it.

The only module that knows aiosmtpd 1.4.6. What is corrected, here and in the modules that it runs:

- An exception in a command is `451 4.3.0` with a fixed text (aiosmtpd: `500` with the exception's).
- A client may be silent for so long, and content must come at some rate; a transfer that goes on
  may take its time (aiosmtpd: one limit for all of DATA).
- Lines end in CRLF; one that ends in a bare LF is no command (aiosmtpd takes it).
- Content is read in blocks of whatever is there, not in lines, and is not kept in memory.
- A client that closes its side after the final dot, or is gone by then, does not cancel what is
  being done with its mail (aiosmtpd cancels the handler; the mail would be in doubt).
- What was sent before a TLS handshake is forgotten, and so is the session's state; TLS starts once.
- AUTH works on implicit TLS, and not within a transaction.
- Addresses and parameters are read by our own parser; DSN parameters are kept as they came.

The verbs are in `services.ingress.dialogue` and their order in `services.ingress.command_loop`;
this module moves octets and keeps time. Life cycle: `connection_made` (by asyncio) →
`_handle_client` as one task → the connection is closed and `Gate.leave` called, whatever happened.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Final, cast

from aiosmtpd.smtp import SMTP
from prometheus_client import Counter

from services.common import log
from services.common.config.smtp import Listener
from services.common.log import DEBUG, ERROR, INFO, event
from services.common.mail.reply import IDLE_TIMEOUT, SHUTTING_DOWN, Reply
from services.common.mail.trace import TlsSession
from services.ingress.command_loop import CommandLoop
from services.ingress.dialogue import Dialogue, Edge
from services.ingress.gate import Address, Gate, Visitor
from services.ingress.handshake import HANDSHAKE_S
from services.ingress.input import BUFFER_OCTETS, EndOfInput, Input
from services.ingress.proxy_header import Proxied, canonical_address
from services.ingress.replies import wire
from services.ingress.sasl import MAX_RESPONSE_OCTETS
from services.ingress.transaction import Session
from services.ingress.wire import SessionEnd

_log = logging.getLogger(__name__)

# aiosmtpd logs every connection and command with what the client typed.
logging.getLogger("mail.log").setLevel(logging.ERROR)

TLS_SESSIONS = Counter(
    "gatepost_ingress_tls_sessions_total",
    "TLS handshakes that succeeded, by listener and version.",
    ["listener", "version"],
)

LINGER_S: Final = 2.0
"""How long a client that we hang up on may take to read why."""


class Engine(SMTP):
    """One session."""

    def __init__(
        self,
        edge: Edge,
        gate: Gate,
        listener: Listener,
        *,
        tls: ssl.SSLContext | None,
        loop: asyncio.AbstractEventLoop,
        proxied: Proxied | None = None,
        entered: Visitor | None = None,
    ) -> None:
        # SMTP.__init__ is left out: it looks through the handler's attributes, 140 µs for each
        # connection, for hooks that we have not. What the inherited methods read is set here.
        self.loop = loop
        self._input = Input(limit=BUFFER_OCTETS, loop=loop)
        asyncio.StreamReaderProtocol.__init__(self, self._input, loop=loop)
        self.session = None
        self.envelope = None
        self.transport = None
        self._original_transport = None
        self._handler_coroutine = None
        self._timeout_handle = None
        self._timeout_duration = edge.config.smtp.limits.idle.total_seconds()
        self._edge = edge
        self._gate = gate
        self._listener = listener
        self._tls = tls
        self._proxied = proxied
        self._entered = entered
        self._channel: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._waiting_since: float | None = None
        self._awaits_command = False
        self._end = ""

    # --- the connection, as asyncio sees it -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and the handshake is done if the listener has implicit TLS."""
        client = self._proxied or _peer_of(transport)
        if client is None:
            # Gone before it was looked at.
            transport.close()
            return
        # uvloop's transports are no subclasses of asyncio's.
        self._channel = cast(asyncio.Transport, transport)
        self._client = Session(self._listener, client.address, client.port, tls=_tls_of(transport))
        self._dialogue = Dialogue(self._edge, self._client, starttls=self.offers_tls)
        super().connection_made(transport)
        if self._entered is not None:
            self._gate.hand_over(self._entered, self)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone. What is being done with a mail goes on; its reply is lost."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = self._channel = None

    def eof_received(self) -> bool | None:
        """The client sends no more, but it may still listen for its reply."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    def _timeout_cb(self) -> None:
        """Look whether the client was silent for too long; our own work does not count."""
        silent = 0.0
        if self._waiting_since is not None:
            silent = self.loop.time() - self._waiting_since
        if silent < self._timeout_duration:
            self._reset_timeout(self._timeout_duration - silent)
        else:
            self._hang_up("idle", IDLE_TIMEOUT)

    # --- the session, as the gate sees it -------------------------------------------------------

    @property
    def address(self) -> Address:
        """The client's address."""
        return self._client.address

    @property
    def listener_name(self) -> str:
        """Where the client came in."""
        return self._listener.name

    @property
    def is_server(self) -> bool:
        """Whether the client is a mail server, not somebody who logs in."""
        return not self._client.is_submission

    def drain(self) -> None:
        """Say goodbye now if no mail is in hand; otherwise the command loop does so after it."""
        if self._awaits_command and self._dialogue.transaction is None:
            self._hang_up("drained", SHUTTING_DOWN)

    def abort(self) -> None:
        """End the session whatever it does."""
        self._end = self._end or "drained"
        if self._channel is not None:
            self._channel.abort()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def _hang_up(self, end: str, reply: Reply) -> None:
        """End the session while its task waits for the client."""
        self._end = end
        channel = self._channel
        if channel is not None:
            channel.write(wire(reply))
            channel.close()
            # A client that does not read would keep the connection for ever.
            self.loop.call_later(LINGER_S, channel.abort)

    # --- the session's task ---------------------------------------------------------------------

    async def _handle_client(self) -> None:
        with log.session(self._client.id):
            try:
                await self._live()
            except SessionEnd as end:
                self._end = self._end or end.end
            except (EndOfInput, OSError, TimeoutError):
                self._end = self._end or "lost"
            except Exception:  # noqa: BLE001 - one session's failure must not touch the others
                self._end = self._end or "failed"
                event(_log, ERROR, "session failed", exc_info=True)
            finally:
                self._gate.leave(self, self._end or "failed")
                self._log_end()
                if self._timeout_handle is not None:
                    self._timeout_handle.cancel()
                if self._channel is not None:
                    self._channel.close()

    async def _live(self) -> None:
        try:
            refusal = None
            if self._entered is None:
                refusal = self._gate.enter(self, self._edge.config.smtp.limits)
            if refusal is not None:
                raise SessionEnd("excess", refusal)
            self._client.address_lost = self.is_server and self._gate.loses_addresses
            if self._client.tls is not None:
                TLS_SESSIONS.labels(self._listener.name, self._client.tls.version).inc()
            loop = CommandLoop(self, self._dialogue, is_draining=lambda: self._gate.is_draining)
            await loop.run()
        except SessionEnd as end:
            # That the client leaves while it is told why is not what ended its session.
            with suppress(EndOfInput, OSError, TimeoutError):
                if end.reply is not None:
                    self.send(wire(end.reply))
                await self.flush()
                if end.end != "quit":
                    await self._linger()
            raise

    def _log_end(self) -> None:
        client = self._client
        event(
            _log,
            DEBUG if client.accepted else INFO,
            "session over",
            end=self._end,
            listener=self._listener.name,
            client=str(client.address),
            helo=client.helo.value if client.helo else "",
            accepted=client.accepted,
            transactions=client.transactions,
        )

    # --- the wire -------------------------------------------------------------------------------

    async def command_line(self) -> bytes:
        """The next command. Replies are sent first, unless one is there that was pipelined."""
        self._awaits_command = True
        try:
            return await self.answer_line()
        finally:
            self._awaits_command = False

    def waiting_line(self) -> bytes:
        """The next line if it was pipelined."""
        return self._input.waiting_line()

    async def answer_line(self) -> bytes:
        """The next line."""
        if not self._input.has_line:
            await self.flush()
            self._waiting_since = self.loop.time()
        try:
            return await self._input.line(MAX_RESPONSE_OCTETS)
        finally:
            self._waiting_since = None

    async def block(self, most: int | None = None) -> bytes:
        """Whatever the client has sent, up to so many octets."""
        self._waiting_since = self.loop.time()
        try:
            return await self._input.block(most)
        finally:
            self._waiting_since = None

    def unread(self, data: bytes) -> None:
        """Put back what was read too far."""
        self._input.unread(data)

    def send(self, data: bytes) -> None:
        """Have octets sent with the next `flush`."""
        self._out.append(data)

    async def flush(self) -> None:
        """Send what waits."""
        channel = self._channel
        if channel is None:
            raise EndOfInput
        if self._out:
            channel.write(b"".join(self._out))
            self._out.clear()
        if self._paused:  # type: ignore[attr-defined]
            self._waiting_since = self.loop.time()
            try:
                await self._drain_helper()  # type: ignore[attr-defined]
            finally:
                self._waiting_since = None

    @property
    def offers_tls(self) -> bool:
        """Whether there is a certificate for STARTTLS."""
        return self._tls is not None

    async def start_tls(self) -> TlsSession:
        """The handshake of STARTTLS."""
        await self.flush()
        # No await between this and the exchange of the protocol: what came in clear is gone, and
        # what comes from now on is the handshake.
        self._input.forget()
        if self._channel is None or self._tls is None:
            raise EndOfInput
        try:
            channel = await self.loop.start_tls(
                self._channel,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except (OSError, TimeoutError) as error:
            event(_log, INFO, "TLS handshake failed", reason=str(error))
            raise SessionEnd("tls") from error
        tls = _tls_of(channel) if channel is not None else None
        if channel is None or tls is None:
            raise EndOfInput
        self.transport = self._transport = self._channel = channel
        self._over_ssl = True
        self._input.rebind(channel)
        TLS_SESSIONS.labels(self._listener.name, tls.version).inc()
        return tls

    async def _linger(self) -> None:
        """Read on for a moment: closing on unread octets would reset the connection.

        Ends with `TimeoutError`, or with what `block` raises.
        """
        if self._channel is not None and self._channel.can_write_eof():
            self._channel.write_eof()
        async with asyncio.timeout(LINGER_S):
            while True:
                await self._input.block()


def _peer_of(transport: asyncio.BaseTransport) -> Proxied | None:
    """Who is connected; None if the connection is gone already."""
    peer = transport.get_extra_info("peername")
    return Proxied(canonical_address(str(peer[0])), int(peer[1])) if peer else None


def _tls_of(transport: asyncio.BaseTransport) -> TlsSession | None:
    """What was agreed with the client; None without TLS."""
    layer = transport.get_extra_info("ssl_object")
    if layer is None:
        return None
    return TlsSession(layer.version() or "TLS", (layer.cipher() or ("",))[0])
