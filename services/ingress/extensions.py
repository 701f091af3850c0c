"""What EHLO offers (RFC 5321 §4.1.1.1), which is only ever what works in this session, now.

PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
ENHANCEDSTATUSCODES (RFC 2034), DSN (RFC 3461), CHUNKING (RFC 3030), LIMITS (RFC 9422), STARTTLS
(RFC 3207), AUTH (RFC 4954).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.common.config.smtp import Smtp
from services.common.mail.envelope import Extension
from services.ingress.transaction import Session

_ALWAYS: Final = frozenset(
    {Extension.SIZE, Extension.EIGHT_BIT_MIME, Extension.SMTPUTF8, Extension.DSN}
)
_WITH_AUTH: Final = _ALWAYS | {Extension.AUTH}
_NONE: Final[frozenset[Extension]] = frozenset()


def offers_auth(session: Session) -> bool:
    """Whether the client may log in: on a submission listener, over TLS, once."""
    return session.is_submission and session.tls is not None


def parameter_extensions(session: Session) -> Collection[Extension]:
    """The extensions whose parameters MAIL and RCPT take; after HELO none."""
    if not session.esmtp:
        return _NONE
    return _WITH_AUTH if offers_auth(session) else _ALWAYS


def ehlo_lines(session: Session, smtp: Smtp, *, starttls: bool) -> list[str]:
    """The text of the EHLO reply, line by line. `starttls`: there is a certificate for it."""
    limits = smtp.limits
    lines = [
        smtp.hostname,
        "PIPELINING",
        # 0 in the announcement means that no limit is known (RFC 1870 §3), as in the setting.
        f"SIZE {smtp.max_message_size}",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "CHUNKING",
        f"LIMITS MAILMAX={limits.messages_per_connection} RCPTMAX={limits.recipients}",
    ]
    if starttls and session.tls is None:
        lines.append("STARTTLS")
    if offers_auth(session) and session.account is None:
        lines.append("AUTH PLAIN LOGIN")
    return lines


def ehlo_reply(lines: list[str]) -> bytes:
    """The reply on the wire (RFC 5321 §4.2.1: a hyphen on every line but the last)."""
    continued = "".join(f"250-{line}\r\n" for line in lines[:-1])
    return f"{continued}250 {lines[-1]}\r\n".encode()
