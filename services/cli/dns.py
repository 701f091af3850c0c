"""`gatepost dns`: the records that a domain should publish, beside those that it does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from gatepost.keys.v1 import keys_pb2 as pb
from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from services.cli.connection import connect
from services.cli.failure import CliError
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import plain, print_json, printable

MISSING_EXIT_CODE: Final = 10
"""With `--check`: some record is missing or will not do."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def dns(
    domain: Annotated[str, typer.Argument(help="The domain.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write what is missing in zone-file form to this file, too."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 10 if anything is missing.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Show the DNS records that a domain should publish, and what of them is missing."""
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        stub = KeyServiceStub(connection.channel)
        answer = connection.call(stub.GetDnsRecords, pb.GetDnsRecordsRequest(domain=domain))
    missing = [each for each in answer.records if not each.satisfied]
    if output is not None:
        _write(output, missing)
    if as_json:
        print_json(plain(answer))
    else:
        for each in answer.records:
            _tell(each)
        typer.echo(_summary(len(missing), len(answer.records)))
        for note in answer.notes:
            typer.echo(printable(f"note: {note}"), err=True)
    if check and missing:
        raise typer.Exit(MISSING_EXIT_CODE)


def _tell(each: pb.ProposedRecord) -> None:
    record = each.record
    typer.echo(printable(f"{state_of(each):8} {record.type:4} {record.name}"))
    typer.echo(printable(f"         {record.purpose}"))
    for value in each.current_values:
        typer.echo(printable(f"   is now {value}"))
    if each.lookup_error:
        typer.echo(printable(f"   failed {each.lookup_error}"))
    if not each.satisfied:
        verb = "instead" if each.current_values else "publish"
        typer.echo(printable(f"  {verb} {record.value}"))
        typer.echo(printable(f"for a zone file:\n{record.zone_file}"))
    typer.echo("")


def state_of(each: pb.ProposedRecord) -> str:
    """One word: `ok`, `missing`, `wrong` or, where the DNS gave no answer, `unknown`."""
    if each.satisfied:
        return "ok"
    if each.lookup_error:
        return "unknown"
    return "wrong" if each.current_values else "missing"


def _summary(missing: int, count: int) -> str:
    if not missing:
        return f"all {count} records are there"
    return f"{count - missing} of {count} records are there"


def _write(path: Path, records: Iterable[pb.ProposedRecord]) -> None:
    text = "".join(_zone_lines(each) for each in records)
    try:
        path.write_text(text, encoding="ascii", errors="backslashreplace")
    except OSError as error:
        raise CliError(f"{path}: cannot be written: {error.strerror}") from error


def _zone_lines(each: pb.ProposedRecord) -> str:
    """The record, and in comments what it takes the place of: beside it, most would be invalid."""
    comments = [f"; instead of: {value}" for value in each.current_values]
    if each.lookup_error:
        comments.append(f"; may be there already: {each.lookup_error}")
    return "\n".join([*map(printable, comments), each.record.zone_file.rstrip()]) + "\n"
