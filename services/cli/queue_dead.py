"""`gatepost queue dead`: records that could not be read and were set aside."""

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
from services.cli.queue_suppressions import queue_app

__all__ = ["queue_app"]

app = typer.Typer(
    help="Records that could not be read and were set aside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
queue_app.add_typer(app, name="dead")

_PAGE: Final = 500


@app.command("list")
def list_dead(
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """List the records, the oldest first."""
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        found = list(_records(connection))
    if as_json:
        print_json([plain(record) for record in found])
    elif not found:
        console.print("no record was set aside")
    else:
        now = datetime.now(UTC)
        print_table(
            ["NUMBER", "AGE", "OCTETS", "SUBJECT", "REASON"],
            [
                (
                    str(record.sequence),
                    since(record.dead_time, now=now),
                    str(record.size),
                    record.subject,
                    record.reason,
                )
                for record in found
            ],
        )


@app.command()
def requeue(
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", min=1, help="Of the record, as `list` tells.")
    ],
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Put a record back into the queue, once a version runs that can read it."""
    request = pb.RequeueDeadRecordRequest(sequence=number)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        connection.call(QueueServiceStub(connection.channel).RequeueDeadRecord, request)
    tell(f"record {number} is back in the queue", request, as_json=as_json)


def _records(connection: Connection) -> Iterator[pb.DeadRecord]:
    """The records, page by page."""
    stub = QueueServiceStub(connection.channel)
    request = pb.ListDeadRecordsRequest(page_size=_PAGE)
    while True:
        page = connection.call(stub.ListDeadRecords, request)
        yield from page.records
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
