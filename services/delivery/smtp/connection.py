"""A connection to a next hop: lines in, octets out, TLS on top. RFC 5321 §4.2, §4.5.3.1, RFC 3207.

Guarantees
- Every wait has a limit, and the limit is for a whole reply: a peer that sends an octet a second,
  or line after line without end, is cut off like one that is silent.
- Memory is bounded: a peer cannot make us keep more than `MAX_BUFFER_OCTETS`.
- Whatever the peer sends, the outcome is a `Reply` or a `SessionFailed`, nothing else.
- What arrives before a TLS handshake is never taken for something said inside TLS: it ends the
  session (RFC 3207 §4.2, injection of commands and replies).
- A command never holds a line end.

Life cycle: `connect` → `reply`, `command`, `send`, at most one `start_tls` → `close` or `abort`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Final, cast

from services.common.dns import IPAddress
from services.common.mail.reply import Reply, parse_reply
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.tls.chain import chain_of
from services.delivery.tls.report import result_of_handshake

MAX_LINE_OCTETS: Final = 4096
"""RFC 5321 §4.5.3.1.5 says 512; some peers write essays."""

MAX_LINES: Final = 100
"""`parse_reply` makes no sense of more."""

MAX_BUFFER_OCTETS: Final = 64 * 1024

_SEND_PIECE_OCTETS: Final = 64 * 1024
"""Each piece has its own time limit, so that a slow line is told apart from a dead one."""


class Connection(asyncio.Protocol):
    """One TCP connection. Made by `connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._paused_reading = False
        self._ended = False
        self._error: Exception | None = None
        self._late_with = ""
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self.tls_version = ""

    @staticmethod
    async def connect(
        address: IPAddress, port: int, *, limit_s: float, source: str = ""
    ) -> Connection:
        """Connect to an address. Raises `SessionFailed`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                _, connection = await loop.create_connection(
                    Connection, str(address), port, local_addr=(source, 0) if source else None
                )
        except TimeoutError:
            raise SessionFailed(Failure.UNREACHABLE, "no answer to the connection") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise SessionFailed(Failure.UNREACHABLE, f"cannot connect: {reason}") from error
        return connection

    # --- what we say and hear -------------------------------------------------------------------

    async def command(self, line: str, *, limit_s: float) -> Reply:
        """Say one line and return the answer. Raises `SessionFailed`."""
        reply, _ = await self.dialogue(line, limit_s=limit_s)
        return reply

    async def dialogue(self, line: str, *, limit_s: float) -> tuple[Reply, list[bytes]]:
        """As `command`, with the answer's lines as they came."""
        limit = self._limit(limit_s, line.partition(" ")[0])
        try:
            self.write_command(line)
            await self._writable.wait()
            return await self._reply()
        finally:
            limit.cancel()

    async def reply(self, what: str, *, limit_s: float) -> Reply:
        """The next reply. `what` is for the message when none comes. Raises `SessionFailed`."""
        limit = self._limit(limit_s, what)
        try:
            reply, _ = await self._reply()
        finally:
            limit.cancel()
        return reply

    def write_command(self, line: str) -> None:
        """Say one line without waiting for an answer. Raises ValueError if it is not one line."""
        self.write_commands([line])

    def write_commands(self, lines: Sequence[str]) -> None:
        """Say several lines in one go. Raises ValueError if one is not one line."""
        octets = [line.encode() for line in lines]
        if any(b"\r" in line or b"\n" in line or b"\0" in line for line in octets):
            raise ValueError("a command is one line")
        self._write(b"".join(line + b"\r\n" for line in octets))

    async def send(self, data: bytes, *, limit_s: float) -> None:
        """Send octets as they are; `limit_s` is for each 64 KiB. Raises `SessionFailed`.

        A peer that hung up is no error here: it may have said why, and `reply` tells.
        """
        for start in range(0, len(data), _SEND_PIECE_OCTETS):
            if self._ended:
                return
            self._write(data[start : start + _SEND_PIECE_OCTETS])
            if not self._writable.is_set():
                limit = self._limit(limit_s, "the content")
                try:
                    await self._writable.wait()
                finally:
                    limit.cancel()
                if self._late_with:
                    raise self._lost()

    @property
    def has_input(self) -> bool:
        """Whether the peer said something that was not read yet, or hung up."""
        return bool(self._buffer) or self._ended

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str, limit_s: float) -> None:
        """Encrypt from here on. Raises `SessionFailed`."""
        if self._buffer:
            raise SessionFailed(Failure.PROTOCOL, "talked on before the TLS handshake")
        if self._transport is None or self._ended:
            raise self._lost()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                transport = await loop.start_tls(
                    self._transport, self, context, server_hostname=server_name or None
                )
        except TimeoutError:
            raise SessionFailed(Failure.TLS, "no end of the TLS handshake") from None
        except (ssl.SSLError, OSError) as error:
            reason = (
                getattr(error, "verify_message", None)
                or getattr(error, "reason", None)
                or str(error)
                or type(error).__name__
            )
            raise SessionFailed(
                Failure.TLS,
                f"the TLS handshake failed: {reason}",
                tls_result=result_of_handshake(error),
            ) from error
        if transport is None:
            raise SessionFailed(Failure.TLS, "the connection was closed in the TLS handshake")
        self._transport = transport
        self.tls_version = str(transport.get_extra_info("ssl_object").version())

    def certificates(self) -> list[bytes]:
        """What the peer showed in the handshake, its own certificate first, in DER."""
        if self._transport is None:
            return []
        return chain_of(self._transport.get_extra_info("ssl_object"))

    async def close(self, *, limit_s: float) -> None:
        """Close in order; `abort` if the peer does not play along. Never raises."""
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._closed.wait()
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once, with what was not sent yet."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    # --- inside ---------------------------------------------------------------------------------

    async def _reply(self) -> tuple[Reply, list[bytes]]:
        lines: list[bytes] = []
        while True:
            line = await self._line()
            lines.append(line)
            if line[3:4] != b"-":
                return parse_reply(lines), lines
            if len(lines) >= MAX_LINES:
                raise SessionFailed(Failure.PROTOCOL, "a reply without end")

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n", 0, MAX_LINE_OCTETS)) < 0:
            if len(self._buffer) >= MAX_LINE_OCTETS:
                raise SessionFailed(Failure.PROTOCOL, "a line without end")
            if self._ended:
                raise self._lost()
            self._readable.clear()
            await self._readable.wait()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()
        return line

    def _write(self, data: bytes) -> None:
        # To one that hung up nothing is said; what it said before is still to be read.
        if not self._ended and self._transport is not None:
            self._transport.write(data)

    def _limit(self, limit_s: float, what: str) -> asyncio.TimerHandle:
        """End the connection unless this is cancelled in time; `what` is what we wait for.

        A timer costs a third of what `asyncio.timeout` in a context manager of ours does, and there
        are four replies to a mail.
        """
        return asyncio.get_running_loop().call_later(limit_s, self._is_late, what)

    def _is_late(self, what: str) -> None:
        self._late_with = what
        self._end(None)

    def _lost(self) -> SessionFailed:
        if self._late_with:
            return SessionFailed(Failure.TIMEOUT, f"no answer in time to {self._late_with}")
        why = f": {self._error}" if self._error is not None else ""
        return SessionFailed(Failure.LOST, f"the connection was lost{why}")

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_BUFFER_OCTETS and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._error = self._error or error
        self._readable.set()
        self._writable.set()
