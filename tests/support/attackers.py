"""Clients that behave badly, many at a time, in a process of their own.

In the event loop of the test they would slow down the client that is measured, not the server.
Life cycle: `attacked` starts the process and ends it; run as a module, this is the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from tests.support.smtp_client import Client, connected

ATTACKERS: Final = 40
OVER_TLS: Final = frozenset({"guessing"})
"""They come to a port with implicit TLS; the others to one that begins in clear."""

_WRONG_PASSWORD: Final = "AHlvdUBleGFtcGxlLnRlc3QAd3Jvbmc="
_READY: Final = b"attacking\n"
_START_S: Final = 30.0


async def _drip(client: Client) -> None:
    await client.begin()
    while True:
        client.send(b"x")
        await asyncio.sleep(0.02)


async def _commands(client: Client) -> None:
    while True:
        client.send(b"NOOP\r\n" * 500)
        await client.writer.drain()
        await asyncio.sleep(0)


async def _content(client: Client) -> None:
    await client.begin()
    while True:
        client.send(b"x" * 60_000 + b"\r\n")
        await client.writer.drain()
        await asyncio.sleep(0)


async def _guessing(client: Client) -> None:
    while (await client.say(f"AUTH PLAIN {_WRONG_PASSWORD}")).startswith("535 "):
        pass


async def _connecting(client: Client) -> None:
    client.writer.transport.abort()


KINDS: Final[Mapping[str, Callable[[Client], Awaitable[None]]]] = {
    "drip": _drip,
    "commands": _commands,
    "content": _content,
    "guessing": _guessing,
    "connecting": _connecting,
}


@asynccontextmanager
async def attacked(kind: str, port: int) -> AsyncIterator[None]:
    """While inside, `ATTACKERS` clients behave like that at a port of this machine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.attackers", kind, str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_S):
            assert await process.stdout.readline() == _READY
        yield
        assert process.returncode is None, "the attackers gave up"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _attack(kind: str, port: int, begun: asyncio.Semaphore) -> None:
    """Behave badly again and again, whatever the server does about it."""
    while True:
        with contextlib.suppress(OSError, AssertionError, TimeoutError):
            async with connected(port, tls=kind in OVER_TLS) as client:
                await client.hello()
                begun.release()
                await KINDS[kind](client)
        await asyncio.sleep(0.01)


async def _main(kind: str, port: int) -> None:
    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(ATTACKERS):
            group.create_task(_attack(kind, port, begun))
        for _ in range(ATTACKERS):
            await begun.acquire()
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
