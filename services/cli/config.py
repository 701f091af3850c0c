"""`gatepost config`: is the file right, what is in force, what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from services.cli.output import print_json
from services.cli.serve import ServiceDataOption, open_config
from services.common.config.model import Config

app = typer.Typer(
    help="Check and show the configuration.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

FileArgument = Annotated[Path, typer.Argument(help="The configuration file.")]
OptionalFileArgument = Annotated[
    Path | None, typer.Argument(help="The configuration file; none for the defaults.")
]


@app.command("check")
def check_file(file: FileArgument, data: ServiceDataOption = None) -> None:
    """Tell every mistake in a configuration file. Exit code 2 if there is one."""
    open_config(file, data)
    typer.echo(f"{file}: valid")


@app.command()
def show(
    file: OptionalFileArgument = None,
    data: ServiceDataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Print the configuration with every default filled in."""
    values = open_config(file, data).current.model_dump(mode="json")
    if as_json:
        print_json(values)
    else:
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    typer.echo(json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False))
