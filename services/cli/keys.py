"""`gatepost keys`: alone it runs the keys service; with a subcommand it handles DKIM keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from google.protobuf.duration_pb2 import Duration

from gatepost.keys.v1 import keys_pb2 as pb
from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from services.cli.connection import Connection, connect
from services.cli.failure import CliError, Exit
from services.cli.keys_status import status
from services.cli.options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    TokenOption,
)
from services.cli.output import plain, print_json, print_table, printable, when
from services.cli.serve import ServiceDataOption, command
from services.common.config.types import parse_duration

app = typer.Typer(
    help="Run the keys service alone, or handle DKIM keys.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)

DomainArgument = Annotated[str, typer.Argument(help="The signing domain.")]
SelectorArgument = Annotated[str, typer.Argument(help="The key's selector.")]
ExpiryOption = Annotated[
    str, typer.Option("--expiry", help="When to replace it, 365d say; 0 for never.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", help="Write the record in zone-file form to this file, too."),
]

_PAGE: Final = 1000
_WORDS: Final = {
    "key_type": "--type",
    "leave_unsigned": "--leave-unsigned",
    "override_publication": "--override",
    "secret_name": "--secret",
    "secret_field": "--field",
}
"""What the fields of a request are here."""


@app.callback()
def _run(
    context: typer.Context, config: ConfigOption = None, data: ServiceDataOption = None
) -> None:
    if context.invoked_subcommand is None:
        command("keys")(config, data)


@app.command()
def create(
    domain: DomainArgument,
    selector: Annotated[
        str, typer.Option("--selector", help="Blank: one with the date in it.")
    ] = "",
    key_type: Annotated[str, typer.Option("--type", help="rsa or ed25519.")] = "rsa",
    bits: Annotated[
        int, typer.Option("--bits", help="RSA: 1024 to 4096; more is slower. 0 means 2048.")
    ] = 0,
    expiry: ExpiryOption = "0",
    output: OutputOption = None,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Make a key and print the DNS record to publish."""
    request = pb.CreateKeyRequest(domain=domain, selector=selector, key_type=key_type, bits=bits)
    _set_expiry(request.expiry, expiry)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        key = connection.call(_stub(connection).CreateKey, request, words=_WORDS).key
    _tell(key, as_json, output)


@app.command("import")
def import_key(
    domain: DomainArgument,
    selector: SelectorArgument,
    pem: Annotated[
        str, typer.Argument(help="A file with the private key in PEM form; - for standard input.")
    ] = "",
    secret: Annotated[
        str, typer.Option("--secret", help="Instead: a Secret in the namespace of the keys.")
    ] = "",
    field: Annotated[
        str, typer.Option("--field", help="Which entry of the Secret; blank for its only one.")
    ] = "",
    expiry: ExpiryOption = "0",
    output: OutputOption = None,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Take over a key that was made elsewhere. What it was read from stays as it is."""
    if bool(pem) == bool(secret):
        raise CliError("name a PEM file or a --secret, and not both", Exit.USAGE)
    request = pb.ImportKeyRequest(
        domain=domain, selector=selector, secret_name=secret, secret_field=field
    )
    _set_expiry(request.expiry, expiry)
    if pem:
        request.private_key_pem = _read_pem(pem)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        words = {**_WORDS, "private_key_pem": "a file" if secret else _shown(pem)}
        key = connection.call(_stub(connection).ImportKey, request, words=words).key
    _tell(key, as_json, output)


@app.command("list")
def list_keys(
    domain: Annotated[str, typer.Option("--domain", help="Only keys of this domain.")] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """List the keys."""
    keys: list[pb.Key] = []
    request = pb.ListKeysRequest(domain=domain, page_size=_PAGE)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        while True:
            page = connection.call(_stub(connection).ListKeys, request)
            keys.extend(page.keys)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if as_json:
        print_json([plain(key) for key in keys])
        return
    print_table(
        ["DOMAIN", "SELECTOR", "TYPE", "STATE", "CREATED", "EXPIRES"],
        [
            (
                key.domain,
                key.selector,
                f"{key.key_type} {key.bits}",
                state_word(key.state),
                when(key.create_time),
                when(key.expire_time) if key.HasField("expire_time") else "never",
            )
            for key in keys
        ],
    )


@app.command()
def show(
    domain: DomainArgument,
    selector: SelectorArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Show a key, its DNS record, and which servers have the record."""
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        stub = _stub(connection)
        request = pb.GetKeyRequest(domain=domain, selector=selector)
        key = connection.call(stub.GetKey, request).key
        question = pb.CheckPublicationRequest(domain=domain, selector=selector)
        publication = connection.call(stub.CheckPublication, question)
    if as_json:
        print_json({"key": plain(key), "publication": plain(publication)})
        return
    _tell(key, as_json, output)
    for answer in publication.servers:
        typer.echo(printable(f"{answer.server}: {answer.answer}"))
    if publication.problem:
        typer.echo(printable(publication.problem))
    typer.echo("published everywhere" if publication.published else "not published everywhere yet")


@app.command()
def activate(
    domain: DomainArgument,
    selector: SelectorArgument,
    override: Annotated[
        bool, typer.Option("--override", help="Even though the record is not visible everywhere.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Let a key sign. Refused until its record is visible."""
    request = pb.ActivateKeyRequest(domain=domain, selector=selector, override_publication=override)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        key = connection.call(_stub(connection).ActivateKey, request, words=_WORDS).key
    _changed(key, as_json)


@app.command()
def retire(
    domain: DomainArgument,
    selector: SelectorArgument,
    leave_unsigned: Annotated[
        bool,
        typer.Option(
            "--leave-unsigned", help="Even if no other key signs: mail is unsigned from then on."
        ),
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """End a key's signing. Its record must stay until the key is retired."""
    request = pb.RetireKeyRequest(domain=domain, selector=selector, leave_unsigned=leave_unsigned)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        key = connection.call(_stub(connection).RetireKey, request, words=_WORDS).key
    _changed(key, as_json)


@app.command()
def delete(
    domain: DomainArgument,
    selector: SelectorArgument,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Destroy a pending or retired key for good. Its selector cannot be used again."""
    request = pb.DeleteKeyRequest(domain=domain, selector=selector)
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        answer = connection.call(_stub(connection).DeleteKey, request)
    if as_json:
        print_json(plain(answer))
    else:
        typer.echo(printable(f"{selector} of {domain} is deleted"))


app.command("status")(status)


def _set_expiry(field: Duration, text: str) -> None:
    try:
        field.FromTimedelta(parse_duration(text))
    except ValueError as error:
        raise CliError(f"--expiry: {error}", Exit.USAGE) from error


def _read_pem(path: str) -> bytes:
    try:
        octets = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", Exit.USAGE) from error
    if not octets:
        raise CliError(f"{_shown(path)}: is empty, not a private key", Exit.USAGE)
    return octets


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path


def _stub(connection: Connection) -> KeyServiceStub:
    return KeyServiceStub(connection.channel)


def _changed(key: pb.Key, as_json: bool) -> None:
    if as_json:
        print_json(plain(key))
    else:
        typer.echo(f"{key.selector} of {key.domain} is {state_word(key.state)}")


def _tell(key: pb.Key, as_json: bool, output: Path | None) -> None:
    if output is not None:
        try:
            output.write_text(key.dns_record.zone_file.rstrip("\n") + "\n", encoding="ascii")
        except OSError as error:
            raise CliError(f"{output}: cannot be written: {error.strerror}") from error
    if as_json:
        print_json(plain(key))
        return
    record = key.dns_record
    typer.echo(f"{key.key_type} key of {key.bits} bits, {state_word(key.state)}")
    typer.echo(f"name:   {record.name}\ntype:   {record.type}\nvalue:  {record.value}")
    typer.echo(f"\nfor a zone file:\n{record.zone_file.rstrip()}\n")
    for note in key.notes:
        typer.echo(printable(f"note: {note}"))


def state_word(state: pb.KeyState.ValueType) -> str:
    """`pending`, `published`, `active`, `retiring` or `retired`."""
    return pb.KeyState.Name(state).removeprefix("KEY_STATE_").lower()
