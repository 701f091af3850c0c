"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file, gatepost.yaml.", show_default=False),
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data", help="The folder of a `gatepost up` on this machine.", envvar="GATEPOST_DATA"
    ),
]
ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        help="host:port of the service's gRPC port; blank for that of `gatepost up`.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="A file with the token to show; blank for the operator's of `gatepost up`.",
        envvar="GATEPOST_TOKEN_FILE",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

DEFAULT_DATA = Path("data")
