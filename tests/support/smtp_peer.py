"""A next hop that does what a test tells it to: replies by command, drops, delays, garbage.

    peer = SmtpPeer(rcpt="451 4.2.1 not now")      # one reply for each RCPT
    peer = SmtpPeer(rcpt=["550 5.1.1 no", "250 ok"])  # one after the other, the last for ever
    peer = SmtpPeer(dot=Drop())                    # takes the content, then hangs up
    async with peer:
        ... peer.port ...
    peer.mails[0].content

A step is a reply (its lines joined by "\\n"), `Drop()`, `Silence()` (until the client gives up),
`Drip(...)` (an octet at a time), `Raw(b"...")`, `Call(function)`, or `Then([step, step])`.
Everything happens in the loop of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias


@dataclass(frozen=True)
class Drop:
    """Hang up (with a reset)."""


@dataclass(frozen=True)
class Silence:
    """Say nothing until the client hangs up."""


@dataclass(frozen=True)
class Drip:
    """Say it an octet at a time."""

    text: str
    pause_s: float = 0.05


@dataclass(frozen=True)
class Raw:
    """Say these octets."""

    data: bytes


@dataclass(frozen=True)
class Then:
    """One after the other."""

    steps: Sequence[Step]


@dataclass(frozen=True)
class Call:
    """Do something else at this moment."""

    function: Callable[[], object]


Step: TypeAlias = "str | Drop | Silence | Drip | Raw | Then | Call"
Script: TypeAlias = "Step | list[Step]"


@dataclass
class PeerMail:
    """What was taken."""

    mail_from: str
    rcpt_to: list[str]
    content: bytes = b""
    tls: bool = False


@dataclass
class _State:
    commands: list[str] = field(default_factory=list)


class _Gone(Exception):
    """The connection has ended."""


class SmtpPeer:
    """A scripted server on loopback. `mails`, `commands` and `connections` tell what it saw."""

    def __init__(
        self,
        *,
        greeting: Script = "220 peer.test ESMTP",
        ehlo: Script = "",
        extensions: Sequence[str] = ("8BITMIME", "SIZE 1000000000", "DSN", "SMTPUTF8"),
        mail: Script = "250 2.1.0 ok",
        rcpt: Script = "250 2.1.5 ok",
        data: Script = "354 go on",
        dot: Script = "250 2.0.0 taken",
        starttls: Script = "220 ready",
        auth: Script = "235 2.7.0 welcome",
        other: Script = "250 ok",
        tls: ssl.SSLContext | None = None,
        lmtp: bool = False,
        pipelining: bool = False,
        delay_s: float = 0.0,
        host: str = "127.0.0.1",
    ) -> None:
        extensions = [
            *extensions,
            *(["STARTTLS"] if tls else []),
            *(["PIPELINING"] if pipelining else []),
        ]
        hello = "\n".join(
            f"250{'-' if number < len(extensions) else ' '}{text}"
            for number, text in enumerate(["peer.test", *extensions])
        )
        self._scripts: dict[str, list[Step]] = {
            name: list(script) if isinstance(script, list) else [script]
            for name, script in {
                "greeting": greeting,
                "EHLO": ehlo or hello,
                "LHLO": ehlo or hello,
                "HELO": "250 peer.test",
                "MAIL": mail,
                "RCPT": rcpt,
                "DATA": data,
                "dot": dot,
                "STARTTLS": starttls,
                "AUTH": auth,
                "QUIT": "221 bye",
                "other": other,
            }.items()
        }
        self._tls = tls
        self._lmtp = lmtp
        self._delay_s = delay_s
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.mails: list[PeerMail] = []
        self.commands: list[str] = []
        self.connections = 0
        self.clients: list[str] = []
        """Where connections came from."""
        self.open = 0
        self.most_open = 0
        self.arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
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

    def script(self, **scripts: Script) -> None:
        """Change what is said from now on; names as of the constructor."""
        names = {"greeting": "greeting", "dot": "dot", "other": "other"}
        for name, script in scripts.items():
            steps = list(script) if isinstance(script, list) else [script]
            self._scripts[names.get(name, name.upper())] = steps

    async def wait_mails(self, count: int, *, seconds: float = 30.0) -> list[PeerMail]:
        """The mails, once there are so many."""
        async with asyncio.timeout(seconds), self.arrived:
            await self.arrived.wait_for(lambda: len(self.mails) >= count)
        return self.mails

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.clients.append(writer.get_extra_info("peername")[0])
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._session(reader, writer)
        except (_Gone, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail: PeerMail | None = None
        tls = False
        await self._say("greeting", writer)
        while line := await reader.readline():
            command = line.decode().rstrip("\r\n")
            self.commands.append(command)
            verb = command.split(" ")[0].upper()
            reply = await self._say(verb if verb in self._scripts else "other", writer)
            accepted = reply.startswith(("2", "3"))
            if verb == "QUIT":
                return
            if verb == "STARTTLS" and reply.startswith("220"):
                if self._tls is None:
                    await self._misunderstand(reader, writer)
                else:
                    await writer.start_tls(self._tls)
                    tls = True
            elif verb == "AUTH":
                while reply.startswith("334"):
                    self.commands.append((await reader.readline()).decode().rstrip("\r\n"))
                    reply = await self._say("AUTH", writer)
            elif verb == "MAIL" and accepted:
                mail = PeerMail(_path(command), [], tls=tls)
            elif verb == "RCPT" and accepted and mail is not None:
                mail.rcpt_to.append(_path(command))
            elif verb == "DATA" and reply.startswith("354") and mail is not None:
                await self._content(mail, reader, writer)
                mail = None

    async def _misunderstand(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take the beginning of a TLS handshake for a command."""
        await reader.read(1)
        await self._do("500 5.5.2 what", writer)
        await reader.read()
        raise _Gone

    async def _content(
        self, mail: PeerMail, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise _Gone
            lines.append(line[1:] if line.startswith(b".") else line)
        mail.content = b"".join(lines)
        reply = ""
        for _ in mail.rcpt_to if self._lmtp else [None]:
            reply = await self._say("dot", writer)
        if reply.startswith("2"):
            async with self.arrived:
                self.mails.append(mail)
                self.arrived.notify_all()

    async def _say(self, name: str, writer: asyncio.StreamWriter) -> str:
        steps = self._scripts[name]
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return await self._do(step, writer)

    async def _do(self, step: Step, writer: asyncio.StreamWriter) -> str:
        match step:
            case str():
                writer.write(step.replace("\n", "\r\n").encode() + b"\r\n")
                await writer.drain()
                return step
            case Raw(data):
                writer.write(data)
                await writer.drain()
                return ""
            case Drip(text, pause_s):
                for octet in text.encode() + b"\r\n":
                    writer.write(bytes([octet]))
                    await asyncio.sleep(pause_s)
                return text
            case Then(steps):
                return [await self._do(each, writer) for each in steps][-1]
            case Call(function):
                function()
                return ""
            case Drop():
                raise _Gone
            case Silence():
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                raise _Gone


def _path(command: str) -> str:
    return command[command.index("<") + 1 : command.rindex(">")]
