"""The command tree. A command's module is loaded when it is called: the services need no tables,
and a question to the queue needs no DNS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version as distribution_version
from typing import Annotated, Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from services.cli.failure import CliError


def _up() -> typer.Typer:
    from services.cli.up.command import app

    return app


def _service(name: str) -> typer.Typer:
    from services.cli.serve import app_for

    return app_for(name)


def _policy() -> typer.Typer:
    from services.cli.policy import app

    return app


def _check() -> typer.Typer:
    from services.cli.check import app

    return app


def _queue() -> typer.Typer:
    # The last of those that add their commands to `queue`.
    from services.cli.queue_dead import queue_app as app

    return app


def _accounts() -> typer.Typer:
    from services.cli.accounts import app

    return app


def _keys() -> typer.Typer:
    from services.cli.keys import app

    return app


def _dns() -> typer.Typer:
    from services.cli.dns import app

    return app


def _topology() -> typer.Typer:
    from services.cli.topology import app

    return app


def _config() -> typer.Typer:
    from services.cli.config import app

    return app


_COMMANDS: Final[dict[str, Callable[[], typer.Typer]]] = {
    "up": _up,
    **{name: partial(_service, name) for name in ("ingress", "delivery")},
    "policy": _policy,
    "keys": _keys,
    "check": _check,
    "queue": _queue,
    "accounts": _accounts,
    "dns": _dns,
    "topology": _topology,
    "config": _config,
}


class _Commands(TyperGroup):
    """The commands by name, none of them loaded before it is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        command = typer.main.get_command(_COMMANDS[cmd_name]())
        command.name = cmd_name
        return command


app = typer.Typer(
    name="gatepost",
    cls=_Commands,
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
