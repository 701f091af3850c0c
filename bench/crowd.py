"""200 clients send 25 MB each at once: who is served, who is put off, and whether anybody stalls.

    python -m bench.crowd [SESSIONS]

A whole `gatepost up` with its default limits, and the clients in this process. A client keeps
sending whatever becomes of its mail, as SMTP has it, so all octets go through the ingress. Beside
them one client after the other sends a small mail. The longest silence is that of the client that
waited longest for anything: a reply, or room for its next octets. RFC 5321 §4.5.3.2 has clients
wait three minutes for room and ten for the reply to the final dot.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.processes import cpu_seconds
from tests.support.installation import Installation
from tests.support.programs import extend_search_path

SESSIONS: Final = 200
OCTETS: Final = 25_000_000
PATIENCE_S: Final = 180.0
"""What RFC 5321 §4.5.3.2.5 grants a server for taking the next octets."""

_LINE: Final = b"0123456789" * 7 + b"\r\n"
_BLOCK: Final = _LINE * 1000
_HEADER: Final = b"From: ann@example.org\r\nSubject: large\r\n\r\n"
_RECIPIENT: Final = "postmaster@example.test"
_CONFIG: Final = {"nats": {"storage_limit": "10GB"}, "dns": {"servers": ["127.0.0.1:1"]}}


@dataclass(slots=True)
class Outcome:
    """What became of all of them."""

    replies: Counter[str] = field(default_factory=Counter)
    """How many sessions ended with which code and enhanced code; blank: the connection was lost."""
    silence_s: float = 0.0
    small_s: list[float] = field(default_factory=list)
    """How long each small mail took, from the connection to its 250."""
    small_failed: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of the ingress."""
    peak_octets: int = 0
    """Memory of the ingress above idle."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note how long a client waits."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.silence_s = max(self.silence_s, time.monotonic() - began)


def run(sessions: int = SESSIONS) -> Outcome:
    """Let them all come."""
    extend_search_path()
    with tempfile.TemporaryDirectory(prefix="gatepost-bench-") as name:
        installation = Installation(Path(name), _CONFIG)
        installation.start()
        try:
            return asyncio.run(_crowd(installation, sessions))
        finally:
            installation.close()


async def _crowd(installation: Installation, sessions: int) -> Outcome:
    port, pid = installation.ports["mx"], installation.pid("ingress")
    await _send(Outcome(), port, 1)
    idle, used = _status(pid, "VmRSS"), cpu_seconds([pid])
    _begin_peak(pid)
    outcome, began = Outcome(), time.monotonic()
    crowd = [asyncio.create_task(_large(outcome, port)) for _ in range(sessions)]
    small = asyncio.create_task(_small_mails(outcome, port))
    await asyncio.gather(*crowd)
    outcome.seconds = time.monotonic() - began
    small.cancel()
    if installation.pid("ingress") != pid:
        raise RuntimeError("the ingress was started again")
    outcome.cpu_s = cpu_seconds([pid]) - used
    outcome.peak_octets = _status(pid, "VmHWM") - idle
    return outcome


async def _large(outcome: Outcome, port: int) -> None:
    try:
        outcome.replies[await _send(outcome, port, OCTETS // len(_BLOCK))] += 1
    except (OSError, asyncio.IncompleteReadError):
        outcome.replies[""] += 1


async def _small_mails(outcome: Outcome, port: int) -> None:
    while True:
        began, beside = time.monotonic(), Outcome()
        if (await _send(beside, port, 0)).startswith("250"):
            outcome.small_s.append(time.monotonic() - began)
        else:
            outcome.small_failed += 1
        await asyncio.sleep(0.1)


async def _send(outcome: Outcome, port: int, blocks: int) -> str:
    """One session with one mail; code and enhanced code of the reply that ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def wait(something: Coroutine[Any, Any, Any]) -> Any:
        with outcome.waiting():
            async with asyncio.timeout(PATIENCE_S):
                return await something

    try:
        code = await wait(_reply(reader))
        for command in (
            "EHLO mail.example.org",
            "MAIL FROM:<ann@example.org>",
            f"RCPT TO:<{_RECIPIENT}>",
            "DATA",
        ):
            if code[0] in "45":
                return str(code)
            writer.write(f"{command}\r\n".encode())
            code = await wait(_reply(reader))
        writer.write(_HEADER)
        for _ in range(blocks):
            writer.write(_BLOCK)
            await wait(writer.drain())
        writer.write(b".\r\n")
        return str(await wait(_reply(reader)))
    finally:
        writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> str:
    while (line := await reader.readuntil(b"\n"))[3:4] == b"-":
        pass
    return line[:9].decode()


def _begin_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key}")


def main() -> None:
    """Measure and print."""
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS
    outcome = run(sessions)
    replies = ", ".join(
        f"{count} × {code or 'lost'}" for code, count in sorted(outcome.replies.items())
    )
    small = sorted(outcome.small_s) or [0.0]
    sys.stdout.write(
        f"{sessions} × 25 MB at once: {replies} in {outcome.seconds:.0f} s\n"
        f"longest silence of a client: {outcome.silence_s:.1f} s\n"
        f"ingress: {outcome.peak_octets / 2**20:.0f} MiB above idle,"
        f" {outcome.cpu_s / sessions / OCTETS * 1e9:.1f} s of CPU for a GB\n"
        f"{len(small)} small mails beside them: median {small[len(small) // 2]:.2f} s,"
        f" longest {small[-1]:.2f} s, {outcome.small_failed} put off\n"
    )
    if sum(outcome.replies.values()) != sessions or outcome.replies[""]:
        sys.exit("somebody was left without a reply")


if __name__ == "__main__":
    main()
