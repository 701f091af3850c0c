"""The skeleton of every service's process: start, signals, tasks and the way to stop.

A service is a coroutine `start(context)` that makes its parts, registers how each of them stops,
spawns its long-lived tasks, and returns. `run(...)` does everything around it and returns the
process's exit code.

Life cycle: logging, event loop, HTTP port (probes answer, not ready) → `start(context)` → ready →
SIGTERM or SIGINT, or a long-lived task that fails or ends → shutdown in the order that
`services.common.shutdown` writes down, within `grace` and the bounds named there.

Guarantees: an error of starting that an operator can mend is one line, not a traceback; the first
long-lived task that fails ends the process with exit code 1, after an orderly shutdown, and a log
line says which; a second signal ends the process at once. Exit codes: `services.common.start`.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import uvloop
from prometheus_client import Histogram, Info

from services.common import log
from services.common.http import HttpServer
from services.common.log import CRITICAL, INFO, WARNING, LogFormat, event
from services.common.readiness import Condition, Readiness
from services.common.shutdown import CLOSE_SECONDS, Shutdown, Stage, StopCallback
from services.common.start import ExitCode, StartError
from services.common.tasks import Tasks

__all__ = ["Context", "ExitCode", "Process", "Stage", "StartError", "run"]

GC_THRESHOLDS = (10_000, 20, 20)
"""New containers between looks at the youngest, and how often that is before the older ones."""

LAG_INTERVAL_SECONDS = 0.5
LAG_WARNING_SECONDS = 1.0
# Ctrl-C reaches a whole process group, and the supervisor's SIGTERM follows at once: that is one
# wish, not two.
SAME_SIGNAL_SECONDS = 1.0

BUILD = Info("gatepost_build", "Version of the running code and of what runs it.")
LOOP_LAG = Histogram(
    "gatepost_event_loop_lag_seconds",
    "How late the event loop runs a timer, which is what everything in this process waits.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What the skeleton needs to know of one process. Times in seconds."""

    service: str  # ingress, policy, delivery or keys: the name in logs and metrics
    http_host: str
    http_port: int  # 0: any free one
    http_setting: str  # the configuration key of the port, for error messages
    log_level: str = "info"
    log_format: LogFormat = LogFormat.JSON
    grace: float = 25.0


class Context:
    """What a starting service is given."""

    def __init__(
        self,
        process: Process,
        *,
        readiness: Readiness,
        stopping: asyncio.Event,
        tasks: Tasks,
        shutdown: Shutdown,
        http_port: int,
    ) -> None:
        self.process = process
        self.readiness = readiness
        self.stopping = stopping  # set once, when the shutdown begins
        self.http_port = http_port  # the one in use, where the setting is 0
        self._tasks = tasks
        self._shutdown = shutdown

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` for as long as the process lives.

        Its failure, or its end before `stopping` is set, ends the process with exit code 1.
        """
        return self._tasks.spawn(name, work)

    def on_stop(self, stage: Stage, name: str, callback: StopCallback) -> None:
        """Have `callback` awaited in `stage` of the shutdown; `name` is for the log."""
        self._shutdown.register(stage, name, callback)

    def stop(self) -> None:
        """Begin the shutdown, as a signal does."""
        self.stopping.set()


Start = Callable[[Context], Awaitable[None]]


def run(process: Process, start: Start) -> ExitCode:
    """Run one service until it is told to stop; never raises, logs instead.

    The process has to end afterwards, and is ended if it takes long over it.
    """
    log.configure(process.service, level=process.log_level, style=process.log_format)
    _log_unhandled()
    BUILD.info({"version": version("gatepost"), "service": process.service})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = _outcome(runner, process, start)
        # Before the loop is closed, which waits for its threads without a limit.
        _end_soon(code)
        return code


def _outcome(runner: asyncio.Runner, process: Process, start: Start) -> ExitCode:
    try:
        return runner.run(_live(process, start))
    except StartError as error:
        event(_log, CRITICAL, "cannot start", reason=str(error))
        return error.exit_code
    except Exception:  # noqa: BLE001 - the log and the exit code are what is left to say it with
        event(_log, CRITICAL, "process failed", exc_info=True)
        return ExitCode.FAILURE


async def _live(process: Process, start: Start) -> ExitCode:
    stopping = asyncio.Event()
    _install_signals(stopping)
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)
    readiness = Readiness()
    started = readiness.require("start")  # before the first probe can come
    http = HttpServer(
        readiness, host=process.http_host, port=process.http_port, setting=process.http_setting
    )
    await http.start()
    event(_log, INFO, "process started", http=f"{http.host}:{http.port}", pid=os.getpid())
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group, stopping)
        shutdown = Shutdown(readiness, tasks, grace=process.grace)
        context = Context(
            process,
            readiness=readiness,
            stopping=stopping,
            tasks=tasks,
            shutdown=shutdown,
            http_port=http.port,
        )
        failed_start = await _work(context, start, started)
        event(_log, INFO, "stopping", reason=_reason(tasks, failed_start))
        if not await shutdown.run():
            _exit(ExitCode.FAILURE)  # the task group would wait for ever
        await http.stop()
    if failed_start is not None:
        raise failed_start
    event(_log, INFO, "process stopped")
    return ExitCode.FAILURE if tasks.failed else ExitCode.CLEAN


def _reason(tasks: Tasks, failed_start: Exception | None) -> str:
    if tasks.failed:
        return f"lost the task {tasks.failed}"
    return "cannot start" if failed_start is not None else "told to stop"


async def _work(context: Context, start: Start, started: Condition) -> Exception | None:
    """From the start to the first reason to stop; the reason, if it is that the start failed."""
    context.spawn("loop-lag", _measure_lag())
    try:
        await _start(start, context)
    except Exception as error:  # noqa: BLE001 - parts that did start are stopped in order
        context.stop()
        return error
    started.meet()
    _tune_garbage_collector()
    await context.stopping.wait()
    return None


async def _start(start: Start, context: Context) -> None:
    """Await `start`, unless the process is told to stop before it has returned."""
    starting = asyncio.ensure_future(start(context))
    stopped = asyncio.ensure_future(context.stopping.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=CLOSE_SECONDS)
    if starting.done() and not starting.cancelled():
        starting.result()


def _tune_garbage_collector() -> None:
    """Look for reference cycles less often, and never again in what the start has built.

    With Python's defaults one twentieth of the CPU of a mail went into walking modules and
    configuration, which stay for ever. What a mail leaves behind is freed without any of this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _install_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    first: list[float] = []

    def received(number: signal.Signals) -> None:
        if not first:
            first.append(loop.time())
            event(_log, INFO, "signal received", signal=number.name)
            stopping.set()
        elif loop.time() - first[0] >= SAME_SIGNAL_SECONDS:
            event(_log, WARNING, "second signal: ending at once", signal=number.name)
            _exit(ExitCode.FAILURE)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)


def _end_soon(code: ExitCode) -> None:
    """A blocking call in some thread must not keep a process that has stopped alive."""

    def end() -> None:
        event(_log, WARNING, "threads did not end", threads=[t.name for t in threading.enumerate()])
        _exit(code)

    timer = threading.Timer(CLOSE_SECONDS, end)
    timer.daemon = True
    timer.start()


def _exit(code: ExitCode) -> None:
    """End now, without cleaning up."""
    sys.stderr.flush()
    os._exit(code)


async def _measure_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_SECONDS
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        lag = max(0.0, loop.time() - due)
        LOOP_LAG.observe(lag)
        if lag >= LAG_WARNING_SECONDS:
            event(_log, WARNING, "event loop was blocked", seconds=round(lag, 3))


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    info = (type(error), error, error.__traceback__) if isinstance(error, Exception) else None
    fields = {"what": context["message"]}
    _log.error("unhandled in the event loop", exc_info=info, extra={"fields": fields})


def _log_unhandled() -> None:
    """Uncaught exceptions, of threads too, become log lines instead of bare tracebacks."""
    sys.excepthook = lambda *error: _log.critical("uncaught exception", exc_info=error)
    threading.excepthook = lambda args: _log.error(
        "uncaught exception in a thread",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
        extra={"fields": {"thread": args.thread.name if args.thread else ""}},
    )
