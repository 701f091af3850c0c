"""A service that does nothing but start and stop, for tests of the process around it.

`python -m tests.support.small_service HTTP_PORT SCENARIO [RPC_PORT]`; what happens is told on
stdout, a line per step.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from services.common import app
from services.common.app import Context, ExitCode, Process, Stage, StartError, run
from services.common.rpc.auth import OPEN, Access, methods
from services.common.rpc.guard import Limits
from services.common.rpc.server import RpcServer
from services.common.rpc.tokens import Tokens
from tests.support.echo_rpc import DESCRIPTOR, SERVICE, EchoServicer, register


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Step:
    """A stop callback that says its name, and does something meanwhile."""

    def __init__(self, name: str, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.name = name
        self.meanwhile = meanwhile

    async def __call__(self) -> None:
        say(f"{self.name} begins")
        if self.meanwhile is not None:
            await self.meanwhile()
        say(f"{self.name} done")


async def forever(name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        say(f"{name} cancelled")


async def start(context: Context) -> None:
    """All parts of an ordinary service, and then the scenario."""
    scenario = sys.argv[2]
    context.on_stop(Stage.CLOSE, "nats", Step("close nats"))
    context.on_stop(Stage.CLOSE, "channel", Step("close channel"))
    late = asyncio.Event()
    drain = {
        "drain-while-told-again": told_again,
        "drain-until-late": late.wait,
        "endless-drain": asyncio.Event().wait,
        "stuck-drain": asyncio.Event().wait,
    }.get(scenario)
    context.on_stop(Stage.DRAIN, "listeners", Step("drain listeners", drain))
    context.on_stop(Stage.DRAIN, "sessions", Step("drain sessions"))
    if len(sys.argv) > 3:
        await start_rpc(context, int(sys.argv[3]), late)
    context.spawn("consumer", forever("consumer"))
    if scenario in SCENARIOS:
        await SCENARIOS[scenario](context)
    say("started")


async def told_again() -> None:
    """By the supervisor, of the Ctrl-C that it heard too; this machine may be slow meanwhile."""
    app.SAME_SIGNAL_SECONDS = 30.0
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.2)


async def start_error(_: Context) -> None:
    raise StartError("policy.grpc.port: 127.0.0.1:1 is in use\nby another process")


async def bad_config(_: Context) -> None:
    raise StartError("unknown key smpt", exit_code=ExitCode.BAD_CONFIG)


async def start_crash(_: Context) -> None:
    raise RuntimeError("unforeseen")


async def start_hangs(_: Context) -> None:
    say("hanging")
    await asyncio.Event().wait()


async def task_fails(context: Context) -> None:
    context.spawn("pull", fail())


async def task_ends(context: Context) -> None:
    context.spawn("pull", end())


async def stubborn(context: Context) -> None:
    context.spawn("stubborn", ignore_cancellation())


async def drain_fails(context: Context) -> None:
    context.on_stop(Stage.DRAIN, "broken", fail)


async def stray_exception(context: Context) -> None:
    asyncio.get_running_loop().call_soon(divide_by_zero)
    await asyncio.sleep(0.05)
    context.stop()


async def stuck_thread(_: Context) -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)


async def blocked(context: Context) -> None:
    context.spawn("blocker", block())


SCENARIOS = {
    "start-error": start_error,
    "bad-config": bad_config,
    "start-crash": start_crash,
    "start-hangs": start_hangs,
    "task-fails": task_fails,
    "task-ends": task_ends,
    "stubborn": stubborn,
    "drain-fails": drain_fails,
    "stray-exception": stray_exception,
    "stuck-thread": stuck_thread,
    "blocked": blocked,
}


async def start_rpc(context: Context, port: int, late: asyncio.Event) -> None:
    """`late` is set once somebody was answered who says "late"."""
    with TemporaryDirectory() as tokens:
        access = Access(Tokens(Path(tokens)))
    server = RpcServer(
        access,
        readiness=context.readiness,
        host="127.0.0.1",
        port=port,
        setting="policy.grpc.port",
        limits=Limits(stop_grace=5.0),
    )

    async def echo(request: Any, _: object) -> object:
        say("call begins")
        await asyncio.sleep(0.3)
        if request.text == "late":
            late.set()
        return request

    table = methods(SERVICE, Echo=OPEN, Count=OPEN)
    server.add(register, EchoServicer(echo=echo), service=DESCRIPTOR, table=table)
    await server.start()
    context.on_stop(Stage.RPC, "grpc", server.stop)


async def fail() -> None:
    raise ValueError("the consumer is gone")


async def end() -> None:
    return


async def ignore_cancellation() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("ignored")


async def block() -> None:
    time.sleep(1.6)  # noqa: ASYNC251 - the fault that is tested
    await asyncio.Event().wait()


def divide_by_zero() -> None:
    _ = 1 / 0


if __name__ == "__main__":
    process = Process(
        service="policy",
        http_host="127.0.0.1",
        http_port=int(sys.argv[1]),
        http_setting="policy.http.port",
        grace=1.0 if sys.argv[2] == "endless-drain" else 30.0,
    )
    sys.exit(run(process, start))
