"""What is foretold of a mail by dry runs, and what becomes of it in a session.

    mail = Mail(recipient="you@example.test")
    told = foretell(edge, mail)         # gRPC and `gatepost check`, which must agree
    outcome = send(edge, mail)          # SMTP
    assert recorded(edge, outcome) == told

Verdicts are compared as JSON values, evidence and all, without the time that a check took. A dry
run comes first, since it leaves no trace and the session may: an account, a remembered answer.
"""

from __future__ import annotations

import json
import smtplib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from typer.testing import CliRunner

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.cli.main import app as gatepost
from services.cli.output import plain
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from tests.support.installation import Installation
from tests.support.policy_cases import MAIL

_CALL_SECONDS = 20.0
_RECORD_SECONDS = 15.0
_TAKEN = (verdict_pb2.ACTION_ACCEPT, verdict_pb2.ACTION_SPAM)

Verdict: TypeAlias = dict[str, Any]
"""A verdict as JSON values, without times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail from 127.0.0.1 to one recipient."""

    recipient: str
    helo: str = "mx.example.org"
    sender: str = "ann@example.org"
    text: str = MAIL

    @property
    def content(self) -> bytes:
        """The octets on the wire."""
        return self.text.replace("\n", "\r\n").encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended."""

    code: int
    text: str
    message_id: str


def foretell(edge: Installation, mail: Mail) -> Verdict:
    """The verdict that decides: on the recipient if he is not taken, otherwise on the mail."""
    with grpc.insecure_channel(f"127.0.0.1:{edge.ports['policy']}") as channel:
        envelope, message = _asked(PolicyServiceStub(channel), mail)
    shown = _checked(edge, mail)
    [recipient] = shown["recipients"]
    assert _timeless(recipient["verdict"]) == _timeless(plain(envelope.recipients[0].verdict))
    assert recipient["deliver_to"] == list(envelope.recipients[0].deliver_to)
    if message is None:
        assert "header_fields" not in shown
        return _timeless(recipient["verdict"])
    assert _timeless(shown["verdict"]) == _timeless(plain(message.verdict))
    assert shown["header_fields"] == plain(message)["header_fields"]
    return _timeless(shown["verdict"])


def _asked(
    policy: PolicyServiceStub, mail: Mail
) -> tuple[pb.CheckEnvelopeResponse, pb.CheckMessageResponse | None]:
    session = pb.Session(client_address="127.0.0.1", helo=mail.helo)
    asked = pb.CheckEnvelopeRequest(
        session=session, sender=mail.sender, recipients=[mail.recipient], dry_run=True
    )
    envelope = policy.CheckEnvelope(asked, timeout=_CALL_SECONDS)
    if envelope.recipients[0].verdict.action not in _TAKEN:
        return envelope, None
    request = pb.CheckMessageRequest(
        session=session,
        sender=mail.sender,
        recipients=[mail.recipient],
        content=mail.content,
        dry_run=True,
    )
    return envelope, policy.CheckMessage(request, timeout=_CALL_SECONDS)


def _checked(edge: Installation, mail: Mail) -> dict[str, Any]:
    """What `gatepost check` prints."""
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        Path(file.name).write_bytes(mail.content)
        told = CliRunner().invoke(
            gatepost,
            [
                *("check", file.name, "--ip", "127.0.0.1", "--helo", mail.helo),
                *("--from", mail.sender, "--to", mail.recipient),
                *("--json", "--data", str(edge.data)),
            ],
        )
    assert told.stdout, told.exception
    shown: dict[str, Any] = json.loads(told.stdout)
    return shown


def send(edge: Installation, mail: Mail) -> Outcome:
    """The reply that ends the transaction: to RCPT if that is not 250, otherwise to the content."""
    log = edge.data / "logs" / "ingress.log"
    before = log.stat().st_size
    with smtplib.SMTP("127.0.0.1", edge.ports["mx"], mail.helo, timeout=30) as client:
        client.ehlo()
        assert client.mail(mail.sender)[0] == 250
        code, octets = client.rcpt(mail.recipient)
        if code == 250:
            code, octets = client.data(mail.content)
    text = octets.decode()
    return Outcome(code, text, text.rpartition(" ")[2] if code == 250 else _refused(log, before))


def _refused(log: Path, start: int) -> str:
    """The id of the first mail that was refused after this place of the log: the reply does not
    tell it."""
    deadline = time.monotonic() + _RECORD_SECONDS
    while time.monotonic() < deadline:
        with log.open("rb") as lines:
            lines.seek(start)
            for line in lines.read().split(b"\n")[:-1]:
                entry = json.loads(line)
                if entry["msg"] in {"recipient refused", "message refused"}:
                    return str(entry["message"])
        time.sleep(0.02)
    raise TimeoutError("the log does not say that a mail was refused")


def recorded(edge: Installation, outcome: Outcome) -> Verdict:
    """The recorded verdict, which is there a moment after the reply."""
    token = token_file(edge.data / "tokens", Role.VIEWER).read_text(encoding="ascii").strip()
    request = pb.ExplainMessageRequest(message_id=outcome.message_id)
    deadline = time.monotonic() + _RECORD_SECONDS
    with grpc.insecure_channel(f"127.0.0.1:{edge.ports['policy']}") as channel:
        policy = PolicyServiceStub(channel)
        while True:
            try:
                found = policy.ExplainMessage(
                    request,
                    metadata=(("authorization", f"Bearer {token}"),),
                    timeout=_CALL_SECONDS,
                )
            except grpc.RpcError as error:
                gone = error.code() is not grpc.StatusCode.NOT_FOUND
                if gone or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return _timeless(plain(found.verdict))


def _timeless(verdict: Verdict) -> Verdict:
    results = [
        {name: value for name, value in result.items() if name != "elapsed"}
        for result in verdict["check_results"]
    ]
    return {**verdict, "check_results": results}
