"""`gatepost queue suppressions`: recipients that are not tried, having been refused for good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.cli.connection import Connection, connect
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import console, plain, print_json, print_table, since, tell
from services.cli.queue_changes import app as queue_app

__all__ = ["queue_app"]

app = typer.Typer(
    help="Recipients that are not tried because they were refused for good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
queue_app.add_typer(app, name="suppressions")

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="The recipient.")]
_PAGE: Final = 500


@app.command("list")
def list_suppressions(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Only this one; none for all.")
    ] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """List the entries."""
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        found = list(_entries(connection, address))
    if as_json:
        print_json([plain(entry) for entry in found])
    elif not found:
        console.print("nobody is on the list" if not address else "it is not on the list")
    else:
        now = datetime.now(UTC)
        print_table(
            ["ADDRESS", "SINCE", "BY", "REASON"],
            [
                (
                    entry.address,
                    since(entry.since_time, now=now),
                    "hand" if entry.by_hand else "refusal",
                    entry.reason,
                )
                for entry in found
            ],
        )


@app.command()
def add(
    address: AddressArgument,
    reason: Annotated[str, typer.Option("--reason", help="For whoever asks later.")] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Return mail for a recipient at once. An entry made by hand does not expire."""
    request = pb.AddSuppressionRequest(address=address, reason=reason)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        answer = connection.call(QueueServiceStub(connection.channel).AddSuppression, request)
    tell(f"{address} is on the list", answer.suppression, as_json=as_json)


@app.command()
def remove(
    address: AddressArgument,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Try mail for a recipient again."""
    request = pb.RemoveSuppressionRequest(address=address)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        connection.call(QueueServiceStub(connection.channel).RemoveSuppression, request)
    tell(f"{address} is not on the list any more", request, as_json=as_json)


def _entries(connection: Connection, address: str) -> Iterator[pb.Suppression]:
    """The entries, page by page."""
    stub = QueueServiceStub(connection.channel)
    request = pb.ListSuppressionsRequest(page_size=_PAGE, address=address)
    while True:
        page = connection.call(stub.ListSuppressions, request)
        yield from page.suppressions
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
