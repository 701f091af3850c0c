"""`gatepost config`: is the file right, what is in force, what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from services.cli.connection import connect
from services.cli.failure import CliError, Exit
from services.cli.keys_status import domain_statuses, without_key
from services.cli.options import DEFAULT_DATA, JsonOption, TokenOption
from services.cli.output import print_json, print_verdict, printable
from services.cli.serve import ServiceDataOption, open_config
from services.common.config.model import Config
from services.common.config.notes import missing_files, notes

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
def check_file(
    file: FileArgument,
    data: ServiceDataOption = None,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            help="host:port of a keys service; it is asked which local domains have no active key.",
            show_default=False,
        ),
    ] = "",
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell every mistake in a configuration file. Exit code 2 if there is one.

    What a valid one does that may not be expected is told in notes, and which of the files that
    it names are not on this machine.

    Where outgoing mail is signed, name the local domains that have no key for it, too, if a keys
    service can be asked: that of --server, or of the `gatepost up` in --data.
    """
    try:
        config = open_config(file, data).current
    except CliError as error:
        if not as_json:
            raise
        print_verdict(problems=error.lines, notes=[])
        raise typer.Exit(error.exit_code) from error
    if not as_json:
        typer.echo(f"{file}: valid")
    found = [*notes(config), *missing_files(config, made_here=data)]
    if config.delivery.dkim.enabled:
        found += _signing_notes(config, server=server, data=data, token_file=token_file)
    if as_json:
        print_verdict(problems=[], notes=found)
    else:
        for note in found:
            typer.echo(printable(f"note: {note}"))


def _signing_notes(
    config: Config, *, server: str, data: Path | None, token_file: Path | None
) -> list[str]:
    """What is to be said of the keys of the local domains. Raises `CliError`."""
    if not server and data is None:
        return [
            "delivery.dkim.enabled: give --server to be told which local domains have no active key"
        ]
    try:
        with connect(
            "keys", server=server, data=data or DEFAULT_DATA, token_file=token_file
        ) as connection:
            statuses, _ = domain_statuses(connection)
    except CliError as error:
        if server or error.exit_code is not Exit.UNAVAILABLE:
            raise
        return [f"delivery.dkim.enabled: nobody knows which local domains have keys: {error}"]
    return [
        f"delivery.dkim.enabled: {domain} has no active key; its mail is not signed"
        for domain in without_key(config.domains.local, statuses)
    ]


@app.command()
def show(
    file: OptionalFileArgument = None,
    data: ServiceDataOption = None,
    as_json: JsonOption = False,
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
