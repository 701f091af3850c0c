"""AUTH PLAIN (RFC 4616) and LOGIN (the expired draft that clients still speak), as RFC 4954 frames
them.

Pure apart from the `ask` that is passed in: it sends one challenge and returns the client's answer.
Credentials are values that live as long as the call; their `repr` does not show them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.common.mail.reply import Reply
from services.ingress.replies import AUTH_ABORTED, AUTH_MALFORMED, AUTH_NOT_BASE64, AUTH_WRONG

MAX_RESPONSE_OCTETS: Final = 12288
"""RFC 4954 §4, with the line end."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends `334` with the base64 text and returns the line that comes, without its end."""


class SaslError(Exception):
    """The exchange has failed; `reply` is what the client is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client claims."""

    username: str = field(repr=False)
    password: str = field(repr=False)


async def plain(initial: bytes | None, ask: Ask) -> Credentials:
    """AUTH PLAIN. Raises `SaslError`."""
    response = _decoded(initial if initial is not None else await ask(b""))
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise SaslError(AUTH_MALFORMED)
    authorization, username, password = map(_text, parts)
    if authorization not in ("", username):
        # To act for somebody else is a right that no account has.
        raise SaslError(AUTH_WRONG)
    return _credentials(username, password)


async def login(initial: bytes | None, ask: Ask) -> Credentials:
    """AUTH LOGIN. Raises `SaslError`."""
    if initial is None:
        initial = await ask(base64.b64encode(b"Username:"))
    username = _text(_decoded(initial))
    password = _text(_decoded(await ask(base64.b64encode(b"Password:"))))
    return _credentials(username, password)


MECHANISMS: Final[Mapping[str, Callable[[bytes | None, Ask], Awaitable[Credentials]]]] = {
    "PLAIN": plain,
    "LOGIN": login,
}


def _credentials(username: str, password: str) -> Credentials:
    if not username or not password:
        raise SaslError(AUTH_WRONG)
    return Credentials(username, password)


def _decoded(response: bytes) -> bytes:
    if response == b"*":
        raise SaslError(AUTH_ABORTED)
    # RFC 4954 §4: an empty initial response is written as one equals sign.
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        # Not chained: what stands near a secret stays out of tracebacks.
        raise SaslError(AUTH_NOT_BASE64) from None


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError(AUTH_MALFORMED) from None
