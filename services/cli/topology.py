"""`gatepost topology`: the streams, consumer and buckets in NATS.

On a machine with a `gatepost up` its folder tells where NATS is and how to log in. In a container
there is none, and the configuration tells all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from services.cli.connection import ENDPOINTS_FILE
from services.cli.failure import CliError, Exit
from services.cli.options import DEFAULT_DATA, ConfigOption, JsonOption
from services.cli.output import print_json, print_verdict
from services.cli.serve import open_config
from services.common import topology
from services.common.config.model import Config
from services.common.jetstream import JetStream, StoreError
from services.common.wiring import nats_settings, topology_settings

app = typer.Typer(
    help="Create and verify the streams in NATS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

POLL_S: Final = 0.05

UpDataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="The folder of a `gatepost up` on this machine; blank for ./data, if it is one.",
        envvar="GATEPOST_DATA",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float, typer.Option("--wait", help="Seconds to wait for NATS.", min=0.1, max=600.0)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What there is to tell of the streams."""

    created: list[str] = field(default_factory=list)
    problems: list[str]
    notes: list[str]
    """Departures from the configuration that are no problem."""


@app.command()
def ensure(
    config: ConfigOption = None,
    data: UpDataOption = None,
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Create what is missing, and update what an older release made or is set differently now."""
    found = _with_store(_config(config, data), wait, partial(_ensure, wait_s=wait))
    if found.problems:
        raise CliError(found.problems)
    if as_json:
        print_json({"created": found.created, "notes": found.notes})
        return
    for line in found.notes:
        typer.echo(line)
    for name in found.created:
        typer.echo(f"created or updated {name}")
    if not found.created:
        typer.echo("nothing was missing")


@app.command()
def verify(
    config: ConfigOption = None,
    data: UpDataOption = None,
    wait: WaitOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Tell what is missing or unsafe. Exit code 1 if anything is."""
    found = _with_store(_config(config, data), wait, _verify, leave_at_once=True)
    if as_json:
        print_verdict(problems=found.problems, notes=found.notes)
        raise typer.Exit(Exit.FAILED if found.problems else 0)
    if found.problems:
        raise CliError(found.problems)
    for line in found.notes:
        typer.echo(line)
    typer.echo("the topology is as it must be")


async def _ensure(store: JetStream, config: Config, *, wait_s: float) -> _Found:
    created = await topology.ensure(store, topology_settings(config), wait_s=wait_s)
    return replace(await _verify(store, config), created=created)


async def _verify(store: JetStream, config: Config) -> _Found:
    settings = topology_settings(config)
    problems = await topology.verify(store, settings)
    notes = [] if problems else await topology.departures(store, settings)
    return _Found(problems=problems, notes=list(notes))


def _config(file: Path | None, data: Path | None) -> Config:
    """What the `gatepost up` of the folder runs with, or the file alone. Raises `CliError`."""
    if data is None and (DEFAULT_DATA / ENDPOINTS_FILE).exists():
        data = DEFAULT_DATA
    return open_config(file, data).current


def _with_store(
    config: Config,
    wait_s: float,
    work: Callable[[JetStream, Config], Awaitable[_Found]],
    *,
    leave_at_once: bool = False,
) -> _Found:
    """`leave_at_once`: do not wait for a server that is there and does not let us in.

    A new installation waits: its server may learn of a password a little later.
    """
    # Each attempt that fails is a line of theirs; the last is told by us.
    logging.getLogger("services.common.jetstream").setLevel(logging.ERROR)

    async def run() -> _Found:
        store = JetStream(nats_settings(config, client_name="gatepost-topology"))
        try:
            await _connect(store, wait_s, leave_at_once=leave_at_once)
            if not store.connected:
                raise CliError(_why_not(store, config), Exit.UNAVAILABLE)
            return await work(store, config)
        except StoreError as error:
            raise CliError(f"NATS: {error}") from error
        finally:
            await store.close()

    return asyncio.run(run())


async def _connect(store: JetStream, wait_s: float, *, leave_at_once: bool) -> None:
    """Return when it stands, when the time is over, or when waiting is of no use."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    stands = asyncio.Event()
    store.on_connection_change(lambda connected: stands.set() if connected else None)
    await store.start()
    while not stands.is_set() and loop.time() < deadline:
        if leave_at_once and store.not_let_in:
            return
        await asyncio.sleep(POLL_S)


def _why_not(store: JetStream, config: Config) -> str:
    urls = ", ".join(config.nats.urls)
    if not store.not_let_in:
        why = f": {store.problem}" if store.problem else ""
        return f"NATS does not answer at {urls}{why}"
    who = (
        f"the user {config.nats.username!r}" if config.nats.username else "anybody without a login"
    )
    return (
        f"NATS at {urls} does not let in {who}; name the folder of its `gatepost up` with --data,"
        " or a configuration with nats.username and nats.password_file with --config"
    )
