"""Authentication at a smarthost: RFC 4954, PLAIN (RFC 4616), LOGIN, XOAUTH2.

Guarantees: credentials are said inside TLS only, and never appear in an error, a log line or a
`repr`; a refusal is temporary, since whoever mistypes a password must not bounce all mail.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.common.mail.reply import Reply
from services.delivery.smtp.failure import Failure, SessionFailed

Say = Callable[[str], Awaitable[Reply]]

_GO_ON: Final = 334


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a smarthost."""

    username: str
    password: str
    is_token: bool = False
    """True: `password` is an OAuth 2 access token."""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"


async def authenticate(
    say: Say, extensions: Mapping[str, str], credentials: Credentials, *, encrypted: bool
) -> None:
    """Log in over an open session; `say` sends a line. Raises `SessionFailed`."""
    if not encrypted:
        raise SessionFailed(Failure.AUTH, "credentials are not sent without TLS")
    offered = extensions.get("AUTH", "").upper().split()
    for mechanism, log_in in _MECHANISMS.items():
        if mechanism in offered and (mechanism == "XOAUTH2") == credentials.is_token:
            reply = await log_in(say, credentials)
            break
    else:
        wanted = "XOAUTH2" if credentials.is_token else "PLAIN or LOGIN"
        raise SessionFailed(Failure.AUTH, f"the smarthost does not offer AUTH {wanted}")
    if not reply.is_success:
        raise SessionFailed(Failure.AUTH, f"the smarthost refuses our credentials: {reply}")


async def _plain(say: Say, credentials: Credentials) -> Reply:
    token = f"\0{credentials.username}\0{credentials.password}"
    return await say(f"AUTH PLAIN {_base64(token)}")


async def _login(say: Say, credentials: Credentials) -> Reply:
    reply = await say("AUTH LOGIN")
    for answer in (credentials.username, credentials.password):
        if reply.code != _GO_ON:
            break
        reply = await say(_base64(answer))
    return reply


async def _xoauth2(say: Say, credentials: Credentials) -> Reply:
    token = f"user={credentials.username}\x01auth=Bearer {credentials.password}\x01\x01"
    reply = await say(f"AUTH XOAUTH2 {_base64(token)}")
    # A refusal comes as a challenge with the reason in it; an empty answer brings the reply.
    return await say("") if reply.code == _GO_ON else reply


_MECHANISMS: Final[Mapping[str, Callable[[Say, Credentials], Awaitable[Reply]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "XOAUTH2": _xoauth2,
}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
