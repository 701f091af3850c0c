"""`gatepost up`: nats-server and the four services on this machine, as supervised child processes.

Start: the folder, the configuration, free ports, secrets → nats-server → the streams → the services
→ an account to try things with → the screen. Stop, in the order in which they need each other:
ingress and delivery, policy and keys, nats-server.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from services.cli.connection import ENDPOINTS_FILE
from services.cli.failure import CliError
from services.cli.options import DEFAULT_DATA, ConfigOption, DataOption
from services.cli.serve import open_config
from services.cli.up import nats_server, screen
from services.cli.up.account import ensure_account
from services.cli.up.data_folder import claimed, write_private
from services.cli.up.supervisor import Child
from services.common import topology
from services.common.config.model import Config
from services.common.config.notes import missing_files
from services.common.jetstream import JetStream, StoreError
from services.common.rpc.tokens import ensure_tokens
from services.common.start import StartError, probe_port
from services.common.tls import ensure_self_signed
from services.common.wiring import nats_settings, topology_settings

SERVICES: Final = ("policy", "keys", "delivery", "ingress")
STOP_ORDER: Final = (("ingress", "delivery"), ("policy", "keys"), ("nats",))
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY_WITHIN_S: Final = 60.0
NATS_WITHIN_S: Final = 60.0
"""Opening a store with a million records takes nats-server tens of seconds."""

START_ATTEMPTS: Final = 3
"""A child that ended so often before all were ready will not run the next time either."""

POLL_S: Final = 0.1


@dataclass(slots=True)
class _Household:
    """The children and the tasks that keep them running."""

    children: dict[str, Child] = field(default_factory=dict)
    keepers: list[asyncio.Task[None]] = field(default_factory=list)

    def add(self, child: Child) -> Child:
        self.children[child.name] = child
        task = asyncio.create_task(child.keep_running(), name=f"keep-{child.name}")
        self.keepers.append(task)
        return child

    def gave_up(self) -> bool:
        """True when a child ended so often that a start will not succeed."""
        return any(child.ends >= START_ATTEMPTS for child in self.children.values())

    def last_lines(self) -> list[str]:
        """What the children that ended said last."""
        return [line for child in self.children.values() if child.ends for line in child.last_lines]

    async def stop(self, wait_s: float) -> None:
        for names in STOP_ORDER:
            present = [self.children[name] for name in names if name in self.children]
            await asyncio.gather(*(child.stop(wait_s=wait_s) for child in present))
        for task in self.keepers:
            task.cancel()
        await asyncio.gather(*self.keepers, return_exceptions=True)

    def kill(self) -> None:
        for child in self.children.values():
            child.kill()


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def up(
    config: ConfigOption = None,
    data: DataOption = DEFAULT_DATA,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show every line that the services log.")
    ] = False,
) -> None:
    """Run everything on this machine: nats-server and the four services."""
    with claimed(data):
        current = open_config(config, data).current
        try:
            _prepare(current, data)
        except StartError as error:
            raise CliError(str(error)) from error
        except OSError as error:
            raise CliError(f"{error.filename or data}: {error.strerror}") from error
        for note in missing_files(current, made_here=data):
            screen.announce(f"note: {note}")
        asyncio.run(_live(current, config, data, verbose=verbose))


def _prepare(config: Config, data: Path) -> None:
    """Everything that can be wrong before a process is started. Raises `StartError`, `OSError`."""
    for setting, host, port in _ports(config):
        probe_port(setting, host=host, port=port)
    ensure_tokens(config.auth.tokens_directory)
    tls = config.smtp.tls
    if tls.certificate_file and tls.certificate_file.parent == (data / "tls").absolute():
        ensure_self_signed(data / "tls", config.smtp.hostname)
    endpoints = {
        "policy": config.services.policy.reached_at,
        "keys": config.services.keys.reached_at,
        "queue": config.services.delivery.reached_at,
        "ca_file": str(config.services.tls.ca_file or ""),
    }
    write_private(data / ENDPOINTS_FILE, json.dumps(endpoints, indent=2) + "\n")


def _ports(config: Config) -> Iterable[tuple[str, str, int]]:
    """Every port that is to be listened on, with the setting that names it."""
    if config.nats.embedded:
        yield ("nats.urls", *nats_server.endpoint(config.nats))
    for index, listener in enumerate(config.smtp.listeners):
        yield f"smtp.listeners.{index}.port", listener.address or "0.0.0.0", listener.port  # noqa: S104
    services = config.services
    for name in ("ingress", "policy", "delivery", "keys"):
        yield (f"services.{name}.http", *getattr(services, name).http)
    for name in ("policy", "delivery", "keys"):
        yield (f"services.{name}.grpc", *getattr(services, name).grpc)


async def _live(config: Config, config_file: Path | None, data: Path, *, verbose: bool) -> None:
    household = _Household()
    stopping = asyncio.Event()
    _handle_signals(stopping, household)
    try:
        await _unless(stopping, _start(household, config, config_file, data, verbose=verbose))
        await stopping.wait()
    finally:
        await household.stop(config.services.grace_period.total_seconds() + 12)
        # Nothing is left that could be stopped: a signal would only make the end look like a crash.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    screen.announce("stopped")


def _handle_signals(stopping: asyncio.Event, household: _Household) -> None:
    """The first signal stops in order, a second one at once; further ones change nothing.

    Not by `add_signal_handler`: when the loop is closed it lets signals end the process again.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def act(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            again = "; press Ctrl-C again to end at once" if number == signal.SIGINT else ""
            screen.announce(f"stopping{again}")
            stopping.set()
        elif len(received) == 2:
            screen.announce("ending at once")
            household.kill()

    for number in SIGNALS:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(act, number))


async def _unless(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work, or leave it when the signal to stop comes first."""
    task, waiter = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done():
        task.result()
    else:
        task.cancel()
        await asyncio.wait({task})


async def _start(
    household: _Household, config: Config, config_file: Path | None, data: Path, *, verbose: bool
) -> None:
    def child(
        name: str,
        *argv: str,
        environment: dict[str, str] | None = None,
        timer_slack_us: int = 0,
    ) -> Child:
        return household.add(
            Child(
                name,
                argv,
                data=data,
                on_line=screen.show_all if verbose else screen.show_line,
                announce=screen.announce,
                environment=environment or {},
                timer_slack_us=timer_slack_us,
            )
        )

    if config.nats.embedded:
        path = nats_server.write_config(config.nats, (data / "nats").absolute())
        argv = (nats_server.program(), "-c", str(path))
        child(
            "nats",
            *argv,
            environment=nats_server.environment(),
            timer_slack_us=nats_server.TIMER_SLACK_US,
        )
    await _nats_listens(config, household)
    await _ensure_topology(config)
    options = ["--data", str(data)] + (["--config", str(config_file)] if config_file else [])
    for name in SERVICES:
        child(name, sys.executable, "-m", "services.cli.main", name, *options)
    await _all_ready(config, household)
    password = "" if config_file else await asyncio.to_thread(ensure_account, data)
    screen.show_running(config, data, password=password)


async def _nats_listens(config: Config, household: _Household) -> None:
    """Return when the NATS port takes connections. Raises `CliError`."""
    host, port = nats_server.endpoint(config.nats)
    deadline = asyncio.get_running_loop().time() + NATS_WITHIN_S
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            if asyncio.get_running_loop().time() > deadline or household.gave_up():
                reason = f"NATS does not answer at {host}:{port}: {error.strerror}"
                raise CliError([reason, *household.last_lines()]) from error
            await asyncio.sleep(POLL_S)
        else:
            writer.close()
            return


async def _ensure_topology(config: Config) -> None:
    store = JetStream(nats_settings(config, client_name="gatepost-up"))
    try:
        await store.start(wait_s=NATS_WITHIN_S)
        if not store.connected:
            raise CliError(f"NATS does not let us in at {config.nats.urls[0]}")
        await topology.ensure(store, topology_settings(config), wait_s=NATS_WITHIN_S)
        problems = await topology.verify(store, topology_settings(config))
        if problems:
            raise CliError(problems)
    except StoreError as error:
        raise CliError(f"NATS: {error}") from error
    finally:
        await store.close()


async def _all_ready(config: Config, household: _Household) -> None:
    """Wait until every service says that it is ready. Raises `CliError` with what keeps it."""
    deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
    for name in SERVICES:
        host, port = getattr(config.services, name).http
        while (problem := await _not_ready(host, port)) is not None:
            if asyncio.get_running_loop().time() > deadline or household.gave_up():
                raise CliError([f"{name} is not ready: {problem}", *household.last_lines()])
            await asyncio.sleep(POLL_S)


async def _not_ready(host: str, port: int) -> str | None:
    """Why a service is not ready; None when it is."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(
                    b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                answer = await reader.read(65536)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return f"{host}:{port} does not answer ({type(error).__name__})"
    status, _, rest = answer.partition(b"\r\n")
    return None if b" 200 " in status + b" " else rest.partition(b"\r\n\r\n")[2].decode()
