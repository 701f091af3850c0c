"""What checks judge, made in one line: envelopes, mails, and what a check may use."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from services.common.config.policy import Policy
from services.common.dns import Resolver
from services.common.mail.message import parse_header, split_message
from services.policy.checks.check import Means
from services.policy.subject import Envelope, Mail, Session

HOSTNAME = "mail.example.test"


def envelope(
    sender: str = "ann@example.org",
    *,
    client: str = "192.0.2.1",
    helo: str = "mx.example.org",
    account: str = "",
) -> Envelope:
    """An envelope as a request tells it."""
    session = Session(address=ip_address(client), helo=helo, authenticated_account=account)
    return Envelope(session, sender)


def mail(text: str | bytes, sender: str = "ann@example.org", **session: str) -> Mail:
    """A mail whose body is at hand; lines may end in LF."""
    octets = text.encode() if isinstance(text, str) else text
    header, body = split_message(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return Mail(envelope(sender, **session), parse_header(header), body=body)


def means(resolver: Resolver, policy: Mapping[str, Any] | None = None) -> Means:
    """What a check may use, with the `policy` section of a configuration."""
    return Means(resolver, Policy.model_validate(policy or {}), HOSTNAME)
