"""`gatepost policy`: alone it runs the policy service; `replay` tries a changed configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.cli.connection import connect
from services.cli.failure import CliError, Exit
from services.cli.options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    TokenOption,
)
from services.cli.output import console, plain, print_json, print_table
from services.cli.serve import ServiceDataOption, command
from services.common.config.types import parse_duration

app = typer.Typer(
    help="Run the policy service alone, or try a changed configuration.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _run(
    context: typer.Context, config: ConfigOption = None, data: ServiceDataOption = None
) -> None:
    if context.invoked_subcommand is None:
        command("policy")(config, data)


@app.command()
def replay(
    candidate: Annotated[
        Path, typer.Option("--candidate", help="A configuration file with the new policy.")
    ],
    since: Annotated[str, typer.Option("--since", help="How far back, 24h say.")] = "24h",
    examples: Annotated[
        int, typer.Option("--examples", help="How many to show.", min=1, max=1000)
    ] = 20,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Tell which recorded decisions a candidate configuration would change."""
    request = pb.ReplayVerdictsRequest(max_examples=examples)
    try:
        request.since_time.FromDatetime(datetime.now(UTC) - parse_duration(since))
        request.candidate_policy = candidate.read_text("utf-8")
    except OSError as error:
        raise CliError(f"{candidate}: cannot be read: {error.strerror}", Exit.USAGE) from error
    except ValueError as error:
        raise CliError(f"--since: {error}", Exit.USAGE) from error
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        response = connection.call(PolicyServiceStub(connection.channel).ReplayVerdicts, request)
    if as_json:
        print_json(plain(response))
        return
    console.print(f"{response.changed} of {response.replayed} decisions would change")
    if response.examples:
        print_table(
            ["ID", "FROM", "WAS", "WOULD BE", "BECAUSE OF"],
            [
                (
                    example.message_id,
                    example.sender or "<>",
                    _word(example.recorded_action),
                    _word(example.candidate_action),
                    example.decisive_check,
                )
                for example in response.examples
            ],
        )


def _word(action: verdict_pb2.Action.ValueType) -> str:
    return verdict_pb2.Action.Name(action).removeprefix("ACTION_").lower()
