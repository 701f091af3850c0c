"""The command tree; each command's code is in the module named after it."""

from __future__ import annotations

import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from services.cli import accounts, check, config, keys, queue, serve, topology
from services.cli.failure import CliError
from services.cli.up import command as up

app = typer.Typer(
    name="gatepost",
    help="An SMTP server set for Kubernetes: receive, judge, keep safe, deliver, sign.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(distribution_version("gatepost"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """An SMTP server set for Kubernetes: receive, judge, keep safe, deliver, sign."""


app.command("up")(up.up)
for service in ("ingress", "policy", "delivery"):
    app.command(service, help=f"Run the {service} service alone.")(serve.command(service))
app.command("check")(check.check)
app.add_typer(queue.app, name="queue")
app.add_typer(accounts.app, name="accounts")
app.add_typer(topology.app, name="topology")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")


def main() -> None:
    """Entry point of the `gatepost` script. Exit codes: `services.cli.failure`."""
    try:
        app()
    except CliError as error:
        for line in error.lines:
            print(f"gatepost: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)  # the reader of our output, `head` say, has seen enough


if __name__ == "__main__":
    main()
