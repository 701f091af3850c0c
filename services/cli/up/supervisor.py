"""Child processes that are kept running: one that ends is started again, and named.

Life cycle of a child: started → running → ended → (a pause) → started …, until `stop`: SIGTERM, and
SIGKILL after the time that it was given. A start that fails, for want of memory or of processes, is
tried again after the pause; `stop` waits for one that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from services.cli.up.log_file import LogFile

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 10.0
"""A child that ran for so long starts again without a longer pause."""

LINE_OCTETS: Final = 64 * 1024
"""Of a longer line only the end is kept."""

GATHER_S: Final = 0.02
"""Between two readings: a mail has a line in most services, and being woken for each costs a
thirtieth of what a mail costs. A pipe holds much more than a child says in this time."""

LAST_LINES: Final = 5
"""So many are repeated for a person when a child does not run."""

Listener = Callable[[str, str], None]
"""Called with a child's name and one line that it logged."""


class Output(asyncio.Protocol):
    """What a child says, by and by. `keep` is called with whole lines, the last without its end."""

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._keep = keep
        self._rest = b""
        self.ended = asyncio.get_running_loop().create_future()
        """Done when nobody can say anything more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            self._keep(lines)
        self._rest = self._rest[-LINE_OCTETS:]
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(GATHER_S, self._transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._keep(self._rest)
        if not self.ended.done():  # nobody waits any more when all is ended at once
            self.ended.set_result(None)


class Child:
    """One supervised process."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        data: Path,
        on_line: Listener,
        announce: Callable[[str], None],
        environment: Mapping[str, str] = MappingProxyType({}),
        timer_slack_us: int = 0,
    ) -> None:
        """`environment` is added to ours; the kernel may wake it late by `timer_slack_us`."""
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.ends = 0
        """How often it ended without being told to."""
        start = (sys.executable, "-m", "services.cli.up.child", str(timer_slack_us))
        self._argv = (*start, *argv)
        self._on_line = on_line
        self._announce = announce
        self._environment = environment
        self._log = LogFile(data / "logs" / f"{name}.log")
        self._pid_file = data / "run" / f"{name}.pid"
        self._pid_file.parent.mkdir(mode=0o700, exist_ok=True)
        self._stopping = False
        self._starting = asyncio.Lock()
        """Held while a process comes to be, so that `stop` sees it."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def stopped(self) -> bool:
        """True once it was told to stop."""
        return self._stopping

    async def keep_running(self) -> None:
        """Start it, and start it again whenever it ends, until `stop`."""
        pause = FIRST_PAUSE_S
        while not self._stopping:
            started = time.monotonic()
            try:
                end = how_ended(await self._run_once())
            except OSError as error:
                end = f"cannot be started: {error.strerror or error}"
            if self.stopped:
                return
            self.ends += 1
            pause = FIRST_PAUSE_S if time.monotonic() - started > STEADY_S else pause
            self._announce(f"{self.name} {end}; starting it again")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _run_once(self) -> int:
        """Its exit code. Raises `OSError` when there is no process."""
        ours, theirs = os.pipe()
        output = Output(self._keep)
        try:
            pipe = os.fdopen(ours, "rb")
            await asyncio.get_running_loop().connect_read_pipe(lambda: output, pipe)
            process = await self._start(theirs)
        finally:
            os.close(theirs)
        await output.ended
        self._log.close()
        return await process.wait()

    async def _start(self, output: int) -> asyncio.subprocess.Process:
        async with self._starting:
            if self.stopped:
                raise ProcessLookupError("told to stop")
            self._process = process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment},
                # Ctrl-C at the terminal is for us alone: we stop the children in order.
                start_new_session=True,
            )
            # For whoever looks; a full disk must not leave the process without its keeper.
            with contextlib.suppress(OSError):
                self._pid_file.write_text(f"{process.pid}\n", encoding="ascii")
        return process

    def _keep(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        self._log.write(f"{text}\n".encode())
        lines = text.split("\n")
        self.last_lines.extend(lines[-LAST_LINES:])
        for line in lines:
            self._on_line(self.name, line)

    async def stop(self, *, wait_s: float) -> None:
        """SIGTERM, and after `wait_s` seconds SIGKILL."""
        self._stopping = True
        async with self._starting:
            process = self._process
        with contextlib.suppress(OSError):
            self._pid_file.unlink()
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), wait_s)
        except TimeoutError:
            self._announce(f"{self.name} did not stop within {wait_s:.0f} s and was killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """SIGKILL, at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


def how_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
