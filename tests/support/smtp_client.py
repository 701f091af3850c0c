"""A client that says exactly what a test wants, one line at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REPLY_S = 15.0


class Client:
    """One connection. Replies are returned whole, as text without the last line end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, all its lines. Empty when the server has hung up."""
        lines = []
        async with asyncio.timeout(REPLY_S):
            while True:
                line = (await self.reader.readline()).decode()
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    return "\n".join(lines)

    def send(self, octets: bytes) -> None:
        """Send without waiting for anything."""
        self.writer.write(octets)

    async def say(self, command: str) -> str:
        """Send a command; the reply to it."""
        self.send(f"{command}\r\n".encode())
        return await self.reply()

    async def hello(self) -> str:
        """Read the greeting and say EHLO; the reply to that."""
        assert (await self.reply()).startswith("220 ")
        return await self.say("EHLO client.example.net")

    async def begin(self, *recipients: str, sender: str = "sender@example.net") -> None:
        """MAIL, RCPT and DATA, all of which must succeed."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 ")
        for recipient in recipients or ("you@example.test",):
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
        assert (await self.say("DATA")).startswith("354 ")

    async def content(self, content: bytes) -> str:
        """Send a content (with its dots stuffed) and the final dot; the reply."""
        self.send(content + b".\r\n")
        return await self.reply()

    async def mail(self, content: bytes, *recipients: str) -> str:
        """A whole transaction; the final reply."""
        await self.begin(*recipients)
        return await self.content(content)

    async def start_tls(self) -> None:
        """STARTTLS and the handshake."""
        assert (await self.say("STARTTLS")).startswith("220 ")
        await self.writer.start_tls(no_questions_asked())

    async def ended(self) -> bytes:
        """What comes until the server hangs up."""
        async with asyncio.timeout(REPLY_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def connected(port: int, *, tls: bool = False) -> AsyncIterator[Client]:
    """A connection to a port of this machine; it is broken off at the end."""
    context = no_questions_asked() if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def no_questions_asked() -> ssl.SSLContext:
    """TLS with whatever certificate the server has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
