"""`gatepost queue retry`, `hold`, `release`, `cancel`, `suspend`, `resume`: changes by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.progress import track

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.cli.connection import Connection, connect
from services.cli.failure import CliError, Exit
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import plain, print_json, stderr_console, tell, when
from services.cli.queue import STATES, DestinationOption, StateOption, app, entries
from services.common.config.types import parse_duration

__all__ = ["app"]

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="The message ids; none with a filter.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before changing many.")]
DomainArgument = Annotated[str, typer.Argument(metavar="DESTINATION", help="The domain.")]

_PROGRESS_FROM: Final = 20
"""So many changes take long enough for a person to want to see them go by."""

_ALL_WILL_FAIL: Final = {Exit.UNAVAILABLE, Exit.PERMISSION}
"""What one record failed with, the next would too."""

_MAX_FAILURES: Final = 20
"""That are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Which records a command is about."""

    ids: Sequence[str]
    state: str
    destination: str
    yes: bool

    def records(self, connection: Connection, verb: str) -> list[tuple[str, str]]:
        """Message ids, each with a destination or a blank for all. Asks the person if by filter."""
        if self.state not in STATES:
            raise CliError(f"--state: {self.state!r} is not ready, deferred or held", Exit.USAGE)
        if self.ids:
            return [(message_id, self.destination) for message_id in self.ids]
        if not self.state and not self.destination:
            raise CliError("give message ids, or --state or --destination", Exit.USAGE)
        request = pb.ListMessagesRequest(state=STATES[self.state], destination=self.destination)
        found = [(each.message_id, each.destination) for each in entries(connection, request)]
        if found and not self.yes:
            typer.confirm(f"{verb.capitalize()} {len(found)} records?", abort=True, err=True)
        return found


Change = Callable[[QueueServiceStub, str, str], tuple[Callable[..., Any], Any]]
"""For a message id and a destination: the method to call, and its request."""


def _add(verb: str, help_text: str, change: Change) -> None:
    """A command that does the same to every record that is named or filtered."""

    def run(
        ids: IdsArgument = None,
        state: StateOption = "",
        destination: DestinationOption = "",
        yes: YesOption = False,
        as_json: JsonOption = False,
        server: ServerOption = "",
        data: DataOption = DEFAULT_DATA,
        token_file: TokenOption = None,
    ) -> None:
        choice = _Choice(ids=ids or (), state=state, destination=destination, yes=yes)
        with connect("queue", server=server, data=data, token_file=token_file) as connection:
            _carry_out(verb, choice, change, connection, as_json)

    app.command(verb, help=help_text)(run)


_add(
    "retry",
    "Try deferred mail now.",
    lambda stub, message_id, destination: (
        stub.RetryMessage,
        pb.RetryMessageRequest(message_id=message_id, destination=destination),
    ),
)
_add(
    "hold",
    "Keep mail from being tried until it is released.",
    lambda stub, message_id, destination: (
        stub.HoldMessage,
        pb.HoldMessageRequest(message_id=message_id, destination=destination),
    ),
)
_add(
    "release",
    "Let held mail go on.",
    lambda stub, message_id, destination: (
        stub.ReleaseMessage,
        pb.ReleaseMessageRequest(message_id=message_id, destination=destination),
    ),
)


@app.command()
def cancel(
    ids: IdsArgument = None,
    state: StateOption = "",
    destination: DestinationOption = "",
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell the sender that it was not delivered.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Remove mail from the queue."""

    def change(stub: QueueServiceStub, message_id: str, domain: str) -> tuple[Any, Any]:
        return stub.CancelMessage, pb.CancelMessageRequest(
            message_id=message_id, destination=domain, notify_sender=notify
        )

    choice = _Choice(ids=ids or (), state=state, destination=destination, yes=yes)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        _carry_out("cancel", choice, change, connection, as_json)


@app.command()
def suspend(
    destination: DomainArgument,
    duration: Annotated[
        str, typer.Option("--for", help="How long, 2h say; blank until it is resumed.")
    ] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Make no attempts at a destination."""
    request = pb.SuspendDestinationRequest(destination=destination)
    if duration:
        try:
            request.until_time.FromDatetime(datetime.now(UTC) + parse_duration(duration))
        except ValueError as error:
            raise CliError(f"--for: {error}", Exit.USAGE) from error
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        connection.call(QueueServiceStub(connection.channel).SuspendDestination, request)
    end = when(request.until_time) if duration else "it is resumed"
    tell(f"{destination} is suspended until {end}", request, as_json=as_json)


@app.command()
def resume(
    destination: DomainArgument,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """End a suspension."""
    request = pb.ResumeDestinationRequest(destination=destination)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        connection.call(QueueServiceStub(connection.channel).ResumeDestination, request)
    tell(f"{destination} is resumed", request, as_json=as_json)


def _carry_out(
    verb: str, choice: _Choice, change: Change, connection: Connection, as_json: bool
) -> None:
    stub = QueueServiceStub(connection.channel)
    changed: list[Any] = []
    failures: list[CliError] = []
    for message_id, destination in _shown(choice.records(connection, verb), verb):
        method, request = change(stub, message_id, destination)
        try:
            changed += connection.call(method, request).entries
        except CliError as error:
            failures.append(error)
            if error.exit_code in _ALL_WILL_FAIL:
                break
    # What was done is told although something failed.
    if as_json:
        print_json([plain(entry) for entry in changed])
    elif changed or not failures:
        typer.echo(f"{verb}: {len(changed)} record{'' if len(changed) == 1 else 's'}")
    if failures:
        raise _together(failures)


def _together(failures: Sequence[CliError]) -> CliError:
    lines = [line for failure in failures for line in failure.lines]
    left_out = len(lines) - _MAX_FAILURES
    if left_out > 0:
        lines[_MAX_FAILURES:] = [f"and {left_out} more failures"]
    return CliError(lines, failures[0].exit_code)


def _shown(records: Sequence[tuple[str, str]], verb: str) -> Iterator[tuple[str, str]]:
    if len(records) < _PROGRESS_FROM or not sys.stderr.isatty():
        return iter(records)
    return iter(track(records, description=verb, console=stderr_console))
