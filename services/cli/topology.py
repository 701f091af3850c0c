"""`gatepost topology`: the streams, consumer and buckets in NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from services.cli.failure import CliError, Exit
from services.cli.options import ConfigOption
from services.cli.serve import ServiceDataOption, open_config
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

WaitOption = Annotated[
    float, typer.Option("--wait", help="Seconds to wait for NATS.", min=0.1, max=600.0)
]


@app.command()
def ensure(
    config: ConfigOption = None, data: ServiceDataOption = None, wait: WaitOption = 60.0
) -> None:
    """Create what is missing, and update the consumers that an older release made."""
    created = _with_store(open_config(config, data).current, wait, _ensure)
    for name in created:
        typer.echo(f"created or updated {name}")
    if not created:
        typer.echo("nothing was missing")


@app.command()
def verify(
    config: ConfigOption = None, data: ServiceDataOption = None, wait: WaitOption = 10.0
) -> None:
    """Tell what is missing or unsafe. Exit code 1 if anything is."""
    problems = _with_store(open_config(config, data).current, wait, _verify)
    if problems:
        raise CliError(problems)
    typer.echo("the topology is as it must be")


async def _ensure(store: JetStream, config: Config) -> list[str]:
    created = await topology.ensure(store, topology_settings(config))
    problems = await topology.verify(store, topology_settings(config))
    if problems:
        raise CliError(problems)
    return created


async def _verify(store: JetStream, config: Config) -> list[str]:
    return await topology.verify(store, topology_settings(config))


def _with_store(
    config: Config, wait_s: float, work: Callable[[JetStream, Config], Awaitable[list[str]]]
) -> list[str]:
    async def run() -> list[str]:
        store = JetStream(nats_settings(config, client_name="gatepost-topology"))
        try:
            await store.start(wait_s=wait_s)
            if not store.connected:
                raise CliError(
                    f"NATS does not answer at {', '.join(config.nats.urls)}", Exit.UNAVAILABLE
                )
            return await work(store, config)
        except StoreError as error:
            raise CliError(f"NATS: {error}") from error
        finally:
            await store.close()

    return asyncio.run(run())
