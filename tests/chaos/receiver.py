"""The servers that mail goes to: one for each domain, each with the mood that a fault gives it.

A server enters a mail in the ledger before it answers 250, so a 250 that never arrived counts as a
delivery. Notifications are entered as such: what they tell about, not themselves.

Runs in a thread of its own; moods may be changed from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import threading
from collections.abc import Iterable
from email.message import EmailMessage
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Self

from tests.support.ledger import HEADER, Ledger
from tests.support.ports import free_ports

REFUSED = "nobody"
"""A local part that every server refuses for good."""

_STEP_DEADLINE_S = 60.0
_SILENCE_S = 10.0
_LINE_LIMIT = 4 * 2**20


class Mood(StrEnum):
    """What a server does."""

    KIND = "kind"
    """Takes everything."""
    BUSY = "busy"
    """Answers every RCPT with 451."""
    AWAY = "away"
    """Hangs up as soon as somebody connects."""
    SILENT = "silent"
    """Says nothing, and hangs up after a while."""
    BABBLING = "babbling"
    """Greets with a reply that never ends."""
    DRIPPING = "dripping"
    """Says ten octets a second."""
    FORGETFUL = "forgetful"
    """Hangs up after the final dot without having taken the mail."""
    CLOSING = "closing"
    """Answers every command after EHLO with 421."""
    SLOW = "slow"
    """Takes one mail at a time, five in a second."""


class Receiver:
    """The servers. A context manager."""

    def __init__(self, ledger: Ledger, domains: Iterable[str]) -> None:
        names = tuple(domains)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.moods = dict.fromkeys(names, Mood.KIND)
        self.ledger = ledger
        self._slow = asyncio.Semaphore(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="receiver")
        self._listening = threading.Event()
        self._stopping = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(_STEP_DEADLINE_S):
            raise RuntimeError("the receiving servers did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def relay(self) -> dict[str, str]:
        """The next hops, as `domains.relay` has them."""
        return {domain: f"smtp:127.0.0.1:{port}" for domain, port in self.ports.items()}

    def set_all(self, mood: Mood) -> None:
        """Give all servers one mood."""
        self.moods = dict.fromkeys(self.moods, mood)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for domain, port in self.ports.items():
                server = await asyncio.start_server(
                    partial(self._talk, domain),
                    "127.0.0.1",
                    port,
                    limit=_LINE_LIMIT,
                )
                stack.callback(server.close)
            self._listening.set()
            await self._stopping.wait()

    async def _talk(
        self, domain: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        session = _Session(self, domain, reader, writer)
        try:
            await session.run()
        except (OSError, EOFError, asyncio.CancelledError, TimeoutError, ValueError):
            pass
        finally:
            writer.transport.abort()

    async def took(self, domain: str, recipients: list[str], content: bytes) -> None:
        """Enter a mail."""
        if self.moods[domain] is Mood.SLOW:
            async with self._slow:
                await asyncio.sleep(0.2)
        failed = failed_recipients(content)
        for recipient in recipients:
            if failed is None:
                self.ledger.was_delivered(content, recipient)
        for mail_id, recipient in failed or ():
            self.ledger.was_notified(mail_id, recipient)


class _Session:
    """One connection to a server."""

    def __init__(
        self,
        receiver: Receiver,
        domain: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._receiver = receiver
        self._domain = domain
        self._reader = reader
        self._writer = writer
        self._recipients: list[str] = []

    @property
    def _mood(self) -> Mood:
        return self._receiver.moods[self._domain]

    async def run(self) -> None:
        """The dialogue until one of both hangs up."""
        if not await self._greeted():
            return
        while True:
            async with asyncio.timeout(_STEP_DEADLINE_S):
                line = await self._reader.readline()
            verb, _, argument = line.decode("ascii", "replace").strip().partition(" ")
            if not line or not await self._command(verb.upper(), argument):
                return

    async def _say(self, text: str) -> None:
        self._writer.write(text.encode() + b"\r\n")
        await self._writer.drain()

    async def _greeted(self) -> bool:
        match self._mood:
            case Mood.AWAY:
                return False
            case Mood.SILENT:
                await asyncio.sleep(_SILENCE_S)
                return False
            case Mood.BABBLING:
                while not self._writer.is_closing():
                    await self._say("220-and another thing")
                return False
            case Mood.DRIPPING:
                for octet in b"220 receiver.test ESMTP, with all the time of the world\r\n":
                    self._writer.write(bytes([octet]))
                    await self._writer.drain()
                    await asyncio.sleep(0.1)
                return True
        await self._say("220 receiver.test ESMTP")
        return True

    async def _command(self, verb: str, argument: str) -> bool:
        """Answer one command. False at the end of the session."""
        if self._mood is Mood.CLOSING and verb != "EHLO":
            await self._say("421 4.3.2 closing")
            return False
        match verb:
            case "EHLO":
                await self._say("250-receiver.test\r\n250-8BITMIME\r\n250 PIPELINING")
            case "RCPT":
                await self._rcpt(argument)
            case "DATA":
                return await self._data()
            case "QUIT":
                await self._say("221 2.0.0 bye")
                return False
            case "MAIL" | "RSET":
                self._recipients = []
                await self._say("250 2.0.0 ok")
            case _:
                await self._say("250 2.0.0 ok")
        return True

    async def _rcpt(self, argument: str) -> None:
        address = argument[argument.index("<") + 1 : argument.index(">")]
        if self._mood is Mood.BUSY:
            await self._say("451 4.2.1 not now")
        elif address.startswith(f"{REFUSED}@"):
            await self._say("550 5.1.1 no such user")
        else:
            self._recipients.append(address)
            await self._say("250 2.1.5 ok")

    async def _data(self) -> bool:
        if not self._recipients:
            await self._say("554 5.5.1 no valid recipients")
            return True
        await self._say("354 go on")
        async with asyncio.timeout(_STEP_DEADLINE_S):
            content = await self._reader.readuntil(b"\r\n.\r\n")
        if self._mood is Mood.FORGETFUL:
            return False
        lines = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        await self._receiver.took(self._domain, self._recipients, lines)
        await self._say("250 2.0.0 taken")
        return True


def failed_recipients(content: bytes) -> list[tuple[str, str]] | None:
    """The ledger's id and each recipient that a notification says is given up; None for a mail."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    if message.get_content_type() != "multipart/report":
        return None
    mail_id = ""
    failed: list[str] = []
    for part in message.walk():
        assert isinstance(part, EmailMessage)
        kind = part.get_content_type()
        if kind == "text/rfc822-headers":
            original = email.message_from_string(str(part.get_content()))
            mail_id = original.get(HEADER, "")
        elif part.get("Final-Recipient") and str(part.get("Action", "")).strip() == "failed":
            failed.append(str(part["Final-Recipient"]).partition(";")[2].strip())
        elif part.get(HEADER):
            mail_id = str(part[HEADER])
    return [(mail_id, recipient) for recipient in failed]
