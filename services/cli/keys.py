"""`gatepost keys`: alone it runs the keys service; with a subcommand it handles DKIM keys."""

from __future__ import annotations

import typer

from services.cli.options import ConfigOption
from services.cli.serve import ServiceDataOption, command

app = typer.Typer(
    help="Run the keys service alone, or handle DKIM keys.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def _run(
    context: typer.Context, config: ConfigOption = None, data: ServiceDataOption = None
) -> None:
    if context.invoked_subcommand is None:
        command("keys")(config, data)
