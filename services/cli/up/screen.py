"""What `gatepost up` shows: one screen of what listens where, and what goes wrong later."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.cli.output import printable
from services.cli.up.laptop import ACCOUNT, DOMAIN
from services.common.config.model import Config
from services.common.config.smtp import Listener, Role, TlsMode

_WORTH_SHOWING: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
_ORDINARY: Final = ('"level": "info"', '"level": "debug"')
"""In the head of a line of ours, where nothing stands that somebody else chose."""

_HEAD_CHARS: Final = 70
_COUNT_WORDS: Final = {2: "Two", 3: "Three"}
_ENVELOPE: Final = frozenset({"time", "level", "service", "logger", "msg", "error"})
_TLS_WORDS: Final = {
    TlsMode.NONE: "no TLS",
    TlsMode.STARTTLS: "STARTTLS",
    TlsMode.IMPLICIT: "TLS from the start",
}
_ROLE_WORDS: Final = {
    Role.MX: "mail between servers",
    Role.SUBMISSION: "mail from clients, with login",
}


def announce(text: str) -> None:
    """One line about what happens to the processes; they go on when it cannot be written."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {printable(text)}", flush=True)


def show_line(name: str, line: str) -> None:
    """A line that a child logged, if a person should see it."""
    head = line[:_HEAD_CHARS]
    if any(level in head for level in _ORDINARY):
        return
    try:
        fields = json.loads(line)
        worth = str(fields["level"]).upper() in _WORTH_SHOWING
        text = f"{name}: {fields['msg']}"
        details = {k: v for k, v in fields.items() if k not in _ENVELOPE}
        text += "".join(f" {key}={value}" for key, value in details.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        worth = "[ERR]" in line or "[FTL]" in line or "Traceback" in line
        text = f"{name}: {line}"
    if worth:
        announce(text[:400])


def show_all(name: str, line: str) -> None:
    """Every line that a child logged."""
    announce(f"{name}: {line}")


def show_running(config: Config, data: Path, *, password: str) -> None:
    """The screen after a successful start. `password` is blank after the first time."""
    lines = [f"Gatepost {version('gatepost')} is running. Ctrl-C stops it.", ""]
    lines += [_listener_line(listener) for listener in config.smtp.listeners]
    services = config.services
    rpc = (
        f"policy {services.policy.grpc}, keys {services.keys.grpc}, queue {services.delivery.grpc}"
    )
    metrics = ", ".join(
        f"{name} {getattr(services, name).http}"
        for name in ("ingress", "policy", "delivery", "keys")
    )
    lines += [
        f"  gRPC         {rpc}",
        f"  metrics      {metrics}",
        f"  mailboxes    {shown(config.mailbox.directory)}",
        f"  logs         {shown(data / 'logs')}",
    ]
    lines += _account_lines(data, password) + _commands(config, data)
    print("\n".join(lines), flush=True)


def _listener_line(listener: Listener) -> str:
    host = listener.address or "*"
    words = f"{_ROLE_WORDS[listener.role]}, {_TLS_WORDS[listener.tls]}"
    return f"  {listener.name:<12} {host}:{listener.port}  {words}"


def password_file(data: Path) -> Path:
    """Where the password of the first account is kept."""
    return data / f"{ACCOUNT}.password"


def _account_lines(data: Path, password: str) -> list[str]:
    path = password_file(data)
    if password:
        return [f"  account      {ACCOUNT}, password {password} (kept in {shown(path)})"]
    return [f"  account      {ACCOUNT}, password in {shown(path)}"] if path.exists() else []


def _commands(config: Config, data: Path) -> list[str]:
    groups = [
        *_first_commands(config, data),
        _question(config),
        ["# see what is on its way", f"{_command('gatepost')} queue list{_data_option(data)}"],
    ]
    lines = ["", f"{_COUNT_WORDS[len(groups)]} commands to try, in another terminal:", ""]
    for group in groups:
        lines += [*group, ""]
    return lines


def _first_commands(config: Config, data: Path) -> list[list[str]]:
    """A mail from the account of the first start to itself, or how to make an account."""
    if not password_file(data).exists():
        if config.recipients.accounts_file:
            return []
        address = f"you@{next(iter(config.domains.local), DOMAIN)}"
        use = "to get mail and to submit it" if config.domains.local else "to submit mail"
        gatepost = _command("gatepost")
        return [
            [
                f"# make an account, {use}; you are asked for its password",
                f"{gatepost} accounts add {address}{_data_option(data)}",
            ]
        ]
    submission = next((s for s in config.smtp.listeners if s.role is Role.SUBMISSION), None)
    if submission is None:
        return []
    scheme = "smtps" if submission.tls is TlsMode.IMPLICIT else "smtp"
    server = f"{scheme}://{submission.address or '127.0.0.1'}:{submission.port}"
    return [
        [
            "# send yourself a mail, then look into the mailbox",
            f"printf 'From: {ACCOUNT}\\nTo: {ACCOUNT}\\nSubject: Hello\\n\\nIt works.\\n' |",
            f"  curl -sS --ssl-reqd --insecure --crlf {server} \\",
            f'    --user "{ACCOUNT}:$(cat {shown(password_file(data))})" \\',
            f"    --mail-from {ACCOUNT} --mail-rcpt {ACCOUNT} --upload-file -",
        ]
    ]


def _question(config: Config) -> list[str]:
    domain = next(iter(config.domains.local), DOMAIN)
    question = {
        "session": {"client_address": "192.0.2.1", "helo": "mail.example.org"},
        "sender": "someone@example.org",
        "recipients": [f"you@{domain}"],
        "dry_run": True,
    }
    return [
        "# ask what would happen to a mail, and why",
        f"{_command('grpcurl')} -plaintext -d '{json.dumps(question)}' \\",
        f"  {config.services.policy.reached_at} gatepost.policy.v1.PolicyService/CheckEnvelope",
    ]


def _data_option(data: Path) -> str:
    return "" if data == Path("data") else f" --data {shown(data)}"


def _command(name: str) -> str:
    """How to type a command in a shell of which we know nothing: its path, if it is one of ours."""
    beside = Path(sys.executable).parent / name
    return shown(beside) if beside.exists() else name


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
