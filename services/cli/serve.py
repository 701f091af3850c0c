"""`gatepost ingress`, `policy`, `delivery`, `keys`: run one service, as containers do."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from services.cli.failure import CliError, Exit
from services.cli.options import ConfigOption
from services.cli.up.laptop import defaults
from services.common.config.loader import ConfigError
from services.common.config.source import ConfigSource

ServiceDataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Take ports and places as `gatepost up` does, with this folder.",
        show_default=False,
    ),
]


def open_config(config: Path | None, data: Path | None) -> ConfigSource:
    """The configuration that a service runs with. Raises `CliError`."""
    has_file = config is not None
    try:
        if data is None:
            return ConfigSource(config)
        source = ConfigSource(config, defaults=defaults(data, has_file=has_file))
        if not source.current.nats.embedded:
            values = defaults(data, has_file=has_file, embedded_nats=False)
            source = ConfigSource(config, defaults=values)
        return source
    except ConfigError as error:
        raise CliError(error.problems, Exit.USAGE) from error


def command(service: str) -> Callable[[ConfigOption, ServiceDataOption], None]:
    """The command that runs a service."""

    def run(config: ConfigOption = None, data: ServiceDataOption = None) -> None:
        source = open_config(config, data)
        # Loaded here, so that a machine needs the libraries only of the service that it runs.
        entry = import_module(f"services.{service}.app")
        raise typer.Exit(entry.run(source))

    return run


def app_for(service: str) -> typer.Typer:
    """`gatepost <service>` as a command of its own."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(help=f"Run the {service} service alone.")(command(service))
    return app
