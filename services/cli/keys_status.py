"""`gatepost keys status`: whether the mail of each domain is signed, and what to do if not.

`config check` asks the same of a running service, about the domains of the file that it checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import typer

from gatepost.keys.v1 import keys_pb2 as pb
from gatepost.keys.v1.keys_pb2_grpc import KeyServiceStub
from services.cli.connection import Connection, connect
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import plain, print_json, print_table, printable

UNSIGNED_EXIT_CODE: Final = 10
"""With `--check`: the mail of some local domain is not signed, or waits."""
_PAGE: Final = 1000


def domain_statuses(connection: Connection) -> tuple[list[pb.DomainStatus], bool]:
    """All domains that a running service tells of, and whether signing is on. Raises `CliError`."""
    stub = KeyServiceStub(connection.channel)
    request = pb.ListDomainsRequest(page_size=_PAGE)
    found: list[pb.DomainStatus] = []
    while True:
        page = connection.call(stub.ListDomains, request)
        found.extend(page.domains)
        if not page.next_page_token:
            return found, page.signing_enabled
        request.page_token = page.next_page_token


def without_key(domains: Iterable[str], statuses: Iterable[pb.DomainStatus]) -> list[str]:
    """Those of the domains for which no key signs."""
    signed = {each.domain for each in statuses if each.signing == pb.DOMAIN_SIGNING_SIGNED}
    return [domain for domain in domains if domain not in signed]


def status(
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 10 if a local domain is unsigned, or mail waits."),
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Tell of every domain whether its mail is signed."""
    with connect("keys", server=server, data=data, token_file=token_file) as connection:
        statuses, is_enabled = domain_statuses(connection)
    if as_json:
        domains = [plain(each) for each in statuses]
        print_json({"signing_enabled": is_enabled, "domains": domains})
    else:
        _tell(statuses, is_enabled=is_enabled)
    if check and any(_is_bad(each, is_enabled=is_enabled) for each in statuses):
        raise typer.Exit(UNSIGNED_EXIT_CODE)


def _tell(statuses: list[pb.DomainStatus], *, is_enabled: bool) -> None:
    rows = [
        (each.domain, _what_happens(each, is_enabled=is_enabled), " ".join(each.selectors))
        for each in statuses
    ]
    print_table(["DOMAIN", "MAIL IS", "KEYS"], rows)
    for each in statuses:
        for problem in each.problems:
            typer.echo(printable(f"{each.domain}: {problem}"))
    if not is_enabled:
        typer.echo("delivery.dkim.enabled is off: no mail is signed, although keys may be there")


def _is_bad(status: pb.DomainStatus, *, is_enabled: bool) -> bool:
    happens = _what_happens(status, is_enabled=is_enabled)
    return happens == "waiting" or (status.local and happens == "unsigned")


def _what_happens(status: pb.DomainStatus, *, is_enabled: bool) -> str:
    """The word for its mail. Where signing is off, none is signed, and none waits for a key."""
    return signing_word(status.signing if is_enabled else pb.DOMAIN_SIGNING_UNSIGNED)


def signing_word(signing: pb.DomainSigning.ValueType) -> str:
    """`signed`, `unsigned` or `waiting`."""
    return pb.DomainSigning.Name(signing).removeprefix("DOMAIN_SIGNING_").lower()
