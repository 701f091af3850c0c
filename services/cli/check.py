"""`gatepost check`: what would policy do with this mail, and why?

Always a dry run: the very code that judges real mail, without a trace. It is asked as the ingress
asks: about the envelope first, and about the mail with the recipients that were taken.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.cli.connection import Connection, connect
from services.cli.failure import CliError, Exit
from services.cli.options import DEFAULT_DATA, DataOption, JsonOption, ServerOption, TokenOption
from services.cli.output import console, plain, print_json, print_table, printable

MAX_EML_OCTETS: Final = 3 * 2**20
RECIPIENT: Final = "recipient"
"""The result on the recipient itself, beside those of the checks."""

_EXIT_CODES: Final = {
    verdict_pb2.ACTION_ACCEPT: 0,
    verdict_pb2.ACTION_SPAM: 10,
    verdict_pb2.ACTION_DEFER: 11,
    verdict_pb2.ACTION_REFUSE: 12,
}
_STYLES: Final = {
    verdict_pb2.ACTION_ACCEPT: "green",
    verdict_pb2.ACTION_SPAM: "yellow",
    verdict_pb2.ACTION_DEFER: "magenta",
    verdict_pb2.ACTION_REFUSE: "red",
}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def check(
    mail: Annotated[
        str,
        typer.Argument(help="An .eml file, - for standard input; none to ask about the envelope."),
    ] = "",
    ip: Annotated[str, typer.Option("--ip", help="The client's address.")] = "127.0.0.1",
    helo: Annotated[str, typer.Option("--helo", help="The name the client gives.")] = "",
    sender: Annotated[str, typer.Option("--from", help="The reverse-path; blank for <>.")] = "",
    recipients: Annotated[
        list[str] | None, typer.Option("--to", help="A forward-path; give it for each recipient.")
    ] = None,
    account: Annotated[
        str, typer.Option("--account", help="As a client that authenticated as this account.")
    ] = "",
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Show the facts behind each result.")
    ] = True,
    as_json: JsonOption = False,
    server: ServerOption = "",
    data: DataOption = DEFAULT_DATA,
    token_file: TokenOption = None,
) -> None:
    """Ask policy what it would do with a mail, and why.

    Exit code: 0 accept, 10 spam, 11 defer, 12 refuse; the highest where recipients differ.
    """
    content = _content(mail) if mail else None
    if not recipients:
        raise CliError("give at least one recipient with --to", Exit.USAGE)
    session = pb.Session(client_address=ip, helo=helo, authenticated_account=account)
    with connect("policy", server=server, data=data, token_file=token_file) as connection:
        asked = pb.CheckEnvelopeRequest(
            session=session, sender=sender, recipients=recipients, dry_run=True
        )
        envelope = connection.call(PolicyServiceStub(connection.channel).CheckEnvelope, asked)
        message = _ask_message(connection, asked, envelope, content)
    if as_json:
        # Once there is a verdict on the mail, it holds the results on session and sender too.
        print_json(plain(envelope) | (plain(message) if message else {}))
    else:
        _show(envelope, message, evidence)
    raise typer.Exit(_exit_code(envelope, message))


def _ask_message(
    connection: Connection,
    asked: pb.CheckEnvelopeRequest,
    envelope: pb.CheckEnvelopeResponse,
    content: bytes | None,
) -> pb.CheckMessageResponse | None:
    """The answer about the mail; None if there is none, or nobody whom it could go to."""
    taken = [
        answer.recipient
        for answer in envelope.recipients
        if answer.verdict.action in (verdict_pb2.ACTION_ACCEPT, verdict_pb2.ACTION_SPAM)
    ]
    if content is None or not taken:
        return None
    request = pb.CheckMessageRequest(
        session=asked.session,
        sender=asked.sender,
        recipients=taken,
        content=content,
        envelope_results=envelope.verdict.check_results,
        dry_run=True,
    )
    return connection.call(PolicyServiceStub(connection.channel).CheckMessage, request)


def _content(name: str) -> bytes:
    """The mail with the line ends that it has on the wire."""
    try:
        raw = sys.stdin.buffer.read(MAX_EML_OCTETS + 1) if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CliError(f"{name}: cannot be read: {error.strerror}", Exit.USAGE) from error
    if len(raw) > MAX_EML_OCTETS:
        raise CliError(f"{name}: larger than {MAX_EML_OCTETS} octets", Exit.USAGE)
    return re.sub(rb"\r\n|\r|\n", b"\r\n", raw)


def _show(
    envelope: pb.CheckEnvelopeResponse, message: pb.CheckMessageResponse | None, evidence: bool
) -> None:
    for answer in envelope.recipients:
        target = ", ".join(answer.deliver_to)
        shown = answer.recipient + (f" → {target}" if target and target != answer.recipient else "")
        _show_verdict(shown, answer.verdict)
        results = answer.verdict.check_results
        # The results on session and sender come again with those on the mail.
        own = [result for result in results if result.check == RECIPIENT]
        _show_results(own if message else results, evidence)
    if message:
        _show_verdict("message", message.verdict)
        _show_results(message.verdict.check_results, evidence)
        for field in message.header_fields:
            console.print(Text(printable(f"{field.name}: {field.value}".replace("\r", "")), "dim"))


def _show_verdict(subject: str, verdict: verdict_pb2.Verdict) -> None:
    reply = verdict.reply
    line = Text(printable(subject), "bold")
    line.append("  ")
    line.append(_word(verdict.action), _STYLES.get(verdict.action, "") + " bold")
    if verdict.decisive_check:
        line.append(f"  because of {printable(verdict.decisive_check)}")
    console.print(line)
    if reply.code:
        console.print(
            Text(printable(f"the client is told: {reply.code} {reply.enhanced_code} {reply.text}"))
        )


def _show_results(results: Iterable[verdict_pb2.CheckResult], evidence: bool) -> None:
    rows: list[tuple[str | Text, ...]] = []
    for result in results:
        action = _word(result.configured_action)
        shown = (
            Text(action, _STYLES.get(result.configured_action, "")) if result.objects else Text("")
        )
        milliseconds = result.elapsed.ToTimedelta().total_seconds() * 1000
        rows.append(
            (result.check, result.result, shown, result.explanation, f"{milliseconds:.1f} ms")
        )
        if evidence:
            rows.extend(
                ("", Text(printable(fact.name), "dim"), "", Text(printable(fact.value), "dim"), "")
                for fact in result.evidence
            )
    print_table(["CHECK", "RESULT", "ACTION", "EXPLANATION", "TOOK"], rows)
    console.print()


def _word(action: verdict_pb2.Action.ValueType) -> str:
    return verdict_pb2.Action.Name(action).removeprefix("ACTION_").lower()


def _exit_code(envelope: pb.CheckEnvelopeResponse, message: pb.CheckMessageResponse | None) -> int:
    verdicts = [answer.verdict for answer in envelope.recipients]
    verdicts += [message.verdict] if message else []
    return max((_EXIT_CODES.get(verdict.action, 1) for verdict in verdicts), default=1)
