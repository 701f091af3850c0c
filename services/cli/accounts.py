"""`gatepost accounts`: mailboxes and logins."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from gatepost.policy.v1 import directory_pb2 as pb
from gatepost.policy.v1.directory_pb2_grpc import DirectoryServiceStub
from services.cli.connection import Connection, connect
from services.cli.failure import CliError, Exit
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import plain, print_json, print_table, tell, when

app = typer.Typer(
    help="Mailboxes and logins.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

AddressArgument = Annotated[str, typer.Argument(help="The account's address.")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from this file; - for standard input."),
]
GenerateOption = Annotated[
    bool, typer.Option("--generate", help="Make a password and print it once.")
]

_ORIGINS = {
    pb.ACCOUNT_ORIGIN_CREATED: "created",
    pb.ACCOUNT_ORIGIN_DECLARED: "declared",
    pb.ACCOUNT_ORIGIN_AUTO_CREATED: "auto-created",
}


@app.command()
def add(
    address: AddressArgument,
    password_file: PasswordFileOption = None,
    generate: GenerateOption = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="A mailbox that nobody can log in to.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Make an account. Without an option for the password it is asked for.

    In a domain that is not local it can submit mail, and gets none here.
    """
    password = "" if no_password else _password(password_file, generate)
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        request = pb.CreateAccountRequest(address=address, password=password)
        response = connection.call(_stub(connection).CreateAccount, request)
    _tell(response.account, "created", password if generate else "", as_json)


@app.command()
def passwd(
    address: AddressArgument,
    password_file: PasswordFileOption = None,
    generate: GenerateOption = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Replace an account's password."""
    password = _password(password_file, generate)
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        request = pb.SetPasswordRequest(address=address, password=password)
        response = connection.call(_stub(connection).SetPassword, request)
    _tell(response.account, "has a new password", password if generate else "", as_json)


@app.command("list")
def list_accounts(
    domain: Annotated[str, typer.Option("--domain", help="Only accounts of this domain.")] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """List the accounts."""
    accounts: list[pb.Account] = []
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        request = pb.ListAccountsRequest(domain=domain, page_size=1000)
        while True:
            page = connection.call(_stub(connection).ListAccounts, request)
            accounts.extend(page.accounts)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if as_json:
        print_json([plain(account) for account in accounts])
        return
    print_table(
        ["ADDRESS", "LOGIN", "MAILBOX", "ORIGIN", "CREATED"],
        [
            (
                account.address,
                "yes" if account.has_password else "no",
                "yes" if account.receives_mail else "no",
                _ORIGINS.get(account.origin, "unknown"),
                when(account.create_time),
            )
            for account in accounts
        ],
    )


@app.command()
def delete(
    address: AddressArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Remove an account. Mail in its mailbox stays where it is."""
    if not yes:
        typer.confirm(f"Remove the account {address}?", abort=True, err=True)
    request = pb.DeleteAccountRequest(address=address)
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        connection.call(_stub(connection).DeleteAccount, request)
    tell(f"{address} removed", request, as_json=as_json)


def _stub(connection: Connection) -> DirectoryServiceStub:
    return DirectoryServiceStub(connection.channel)


def _tell(account: pb.Account, what: str, generated: str, as_json: bool) -> None:
    if as_json:
        print_json({**plain(account), **({"password": generated} if generated else {})})
        return
    typer.echo(f"{account.address} {what}")
    if not account.receives_mail:
        domain = account.address.rpartition("@")[2]
        typer.echo(f"it can submit mail and gets none: {domain} is not in domains.local")
    if generated:
        typer.echo(f"password: {generated}")


def _password(password_file: Path | None, generate: bool) -> str:
    if generate:
        return secrets.token_urlsafe(15)
    if password_file is None:
        if not sys.stdin.isatty():
            raise CliError("give --password-file FILE, --generate or --no-password", Exit.USAGE)
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        text = sys.stdin.read() if str(password_file) == "-" else password_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{password_file}: cannot be read: {error}", Exit.USAGE) from error
    return text.rstrip("\r\n")
