"""`gatepost queue`: the mail that is on its way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.text import Text

from gatepost.queue.v1 import event_pb2, record_pb2
from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.cli.connection import Connection, connect
from services.cli.failure import CliError, Exit
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import (
    console,
    octets,
    plain,
    print_json,
    print_table,
    printable,
    since,
    until,
    when,
)
from services.cli.watching import watched

app = typer.Typer(
    help="The mail that is on its way.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

MessageArgument = Annotated[str, typer.Argument(metavar="ID", help="The message id.")]
DestinationOption = Annotated[
    str, typer.Option("--destination", help="Only the record for this domain.")
]
StateOption = Annotated[str, typer.Option("--state", help="Only ready, deferred or held.")]

STATES: Final = {
    "": pb.QUEUE_STATE_UNSPECIFIED,
    "ready": pb.QUEUE_STATE_READY,
    "deferred": pb.QUEUE_STATE_DEFERRED,
    "held": pb.QUEUE_STATE_HELD,
}
_PAGE: Final = 500
_SUSPENSIONS_TOLD: Final = 20
MAX_ENTRIES: Final = 1_000_000


@app.command("list")
def list_messages(
    state: StateOption = "",
    destination: DestinationOption = "",
    limit: Annotated[int, typer.Option("--limit", help="How many at most.", min=1)] = 1000,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """List what is in the queue: why it waits and when it is tried next."""
    if state not in STATES:
        raise CliError(f"--state: {state!r} is not one of ready, deferred, held", Exit.USAGE)
    request = pb.ListMessagesRequest(state=STATES[state], destination=destination)
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        found = list(entries(connection, request, limit))
        suspended = [] if as_json else suspensions(connection, destination)
    if as_json:
        print_json([plain(entry) for entry in found])
    elif not found:
        console.print("the queue is empty" if not state and not destination else "none")
    else:
        _print_entries(found)
    if suspended:
        told = printable(f"suspended: {', '.join(suspended)}")
        console.print(Text(told), soft_wrap=True)


@app.command()
def show(
    message_id: MessageArgument,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Tell the whole life of a mail."""
    with connect("queue", server=server, data=data, token_file=token_file) as connection:
        request = pb.GetMessageRequest(message_id=message_id)
        response = connection.call(QueueServiceStub(connection.channel).GetMessage, request)
    if as_json:
        print_json(plain(response))
        return
    if response.entries:
        _print_entries(response.entries)
        for entry in response.entries:
            for recipient in entry.recipients:
                _print_recipient(recipient)
    else:
        console.print("nothing of it is in the queue any more")
    for event in response.events:
        _print_event(event)


def entries(
    connection: Connection, request: pb.ListMessagesRequest, limit: int = MAX_ENTRIES
) -> Iterator[pb.QueueEntry]:
    """The records that match, page by page."""
    stub = QueueServiceStub(connection.channel)
    while limit > 0:
        request.page_size = min(limit, _PAGE)
        page = connection.call(stub.ListMessages, request)
        yield from page.entries
        limit -= len(page.entries)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def suspensions(connection: Connection, destination: str) -> list[str]:
    """What is suspended and until when, in words; of one destination, or the first of all."""
    stub = QueueServiceStub(connection.channel)
    request = pb.ListSuspensionsRequest(page_size=_PAGE)
    told: list[str] = []
    while True:
        page = connection.call(stub.ListSuspensions, request)
        told += [
            f"{each.destination} until "
            f"{when(each.until_time) if each.HasField('until_time') else 'it is resumed'}"
            for each in page.suspensions
            if not destination or each.destination == destination.lower()
        ]
        if not page.next_page_token or len(told) > _SUSPENSIONS_TOLD:
            break
        request.page_token = page.next_page_token
    return [*told[:_SUSPENSIONS_TOLD], "and more"] if len(told) > _SUSPENSIONS_TOLD else told


def _print_entries(entries: Iterable[pb.QueueEntry]) -> None:
    now = datetime.now(UTC)
    print_table(
        ["ID", "STATE", "DESTINATION", "AGE", "TRIED", "NEXT", "SIZE", "FROM", "REASON"],
        [
            (
                entry.message_id,
                state_word(entry.state),
                entry.destination,
                since(entry.accept_time, now=now),
                str(entry.attempts),
                until(entry.due_time, now=now) if entry.HasField("due_time") else "",
                octets(entry.size),
                entry.sender or "<>",
                entry.wait_reason,
            )
            for entry in entries
        ],
    )


def _print_recipient(recipient: record_pb2.Recipient) -> None:
    state = record_pb2.RecipientState.Name(recipient.state).removeprefix("RECIPIENT_STATE_").lower()
    line = f"  {recipient.address}: {state}"
    if recipient.HasField("last_status"):
        status = recipient.last_status
        reply = status.reply
        line += f", {reply.code} {reply.enhanced_code} {reply.text}"
        line += f" ({status.next_hop})" if status.next_hop else ""
    console.print(Text(printable(line)))


@app.command()
def watch(
    message_id: Annotated[
        str, typer.Argument(metavar="ID", help="Only this mail; none for all.")
    ] = "",
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Tell what happens, as it happens, until Ctrl-C."""
    with (
        connect("queue", server=server, data=data, token_file=token_file) as connection,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for event in watched(connection, message_id):
            if as_json:
                print(json.dumps(plain(event)), flush=True)
            else:
                console.print(Text(f"{event.message_id}  ", "bold"), end="")
                _print_event(event)


def _print_event(event: event_pb2.Event) -> None:
    for line in told(event):
        console.print(Text(f"{when(event.event_time)}  ", "dim").append(printable(line)))


def told(event: event_pb2.Event) -> Iterator[str]:
    """An event in words."""
    match event.WhichOneof("kind"):
        case "verdict":
            verdict = event.verdict.verdict
            because = f" because of {verdict.decisive_check}" if verdict.decisive_check else ""
            client = event.verdict.session.client_address
            action = pb_action(verdict.action)
            yield f"verdict: {action}{because}, from <{event.verdict.sender}> at {client}"
        case "attempt":
            attempt = event.attempt
            hop = f" at {attempt.next_hop}" if attempt.next_hop else ""
            hop += f" over {attempt.tls_version}" if attempt.tls_version else ""
            for outcome in attempt.recipients:
                word = event_pb2.AttemptOutcome.Name(outcome.outcome)
                reply = outcome.reply
                yield (
                    f"attempt {attempt.attempt}: {outcome.address} "
                    f"{word.removeprefix('ATTEMPT_OUTCOME_').lower()}{hop}: "
                    f"{reply.code} {reply.enhanced_code} {reply.text}"
                )
            for session in attempt.tls_sessions:
                policy = f"{session.policy} ({session.mode})" if session.mode else session.policy
                detail = f": {session.detail}" if session.detail else ""
                yield (
                    f"attempt {attempt.attempt}: TLS with {session.host}: "
                    f"policy {policy}, {session.result}{detail}"
                )
        case "notification":
            told = event.notification
            yield f"the sender was told ({told.action}) of {', '.join(told.recipients)}"
        case "operator":
            where = f" for {event.operator.destination}" if event.operator.destination else ""
            yield f"operator: {event.operator.method}{where}"


def state_word(state: pb.QueueState.ValueType) -> str:
    """`ready`, `deferred` or `held`."""
    return pb.QueueState.Name(state).removeprefix("QUEUE_STATE_").lower()


def pb_action(action: int) -> str:
    """`accept`, `spam`, `defer` or `refuse`."""
    return {1: "accept", 2: "spam", 3: "defer", 4: "refuse"}.get(action, "unknown")
