"""The header that an accepted mail goes on with (pure): trace on top, forgeries removed.

RFC 5321 §4.4 (trace), RFC 8601 §5 (results that claim to be ours are removed), RFC 6409 §8 (a
submission gets the Date and Message-ID that it lacks). Lines above the first field that begin with
white space go, since they would continue the last field that we put there. Every field that stays,
stays octet for octet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final

from gatepost.policy.v1.verdict_pb2 import HeaderField as PolicyField
from services.common.mail.domain import unicode_domain
from services.common.mail.message import HeaderBlock, HeaderField, folded
from services.common.mail.trace import date_text

_OURS: Final = ("x-spam-", "x-gatepost-")
"""Local mailboxes sort by these fields, so only policy may write them."""

_TOKEN: Final = re.compile(rb'\\.|[^\\()";]+|.', re.DOTALL)
"""A quoted pair, plain octets, or one that means something."""

_FOLDED_VALUE: Final = re.compile(r"[^\r\n\0]+(?:\r\n[ \t][^\r\n\0]+)*")


def is_stray(field: HeaderField) -> bool:
    """Whether this is a continuation of nothing: only what a header begins with can be one."""
    return field.raw.startswith((b" ", b"\t"))


def rewritten(
    header: HeaderBlock,
    *,
    hostname: str,
    trace: bytes,
    policy_fields: Iterable[PolicyField] = (),
    added: bytes = b"",
) -> bytes:
    """The header block to store: our trace, policy's fields, then what the mail came with.

    `added`: complete fields that the mail lacked.
    """
    claims = _claims_to_be(hostname)
    kept = (field.raw for field in header.fields if not _is_forged(field, claims))
    return b"".join((trace, *map(_policy_field, policy_fields), added, *kept))


def submission_fields(
    header: HeaderBlock, *, message_id: str, hostname: str, now: datetime
) -> bytes:
    """The fields that a submitted mail lacks, to be added to its header."""
    added = b""
    if not header.has("Date"):
        added += folded("Date", date_text(now))
    if not header.has("Message-ID"):
        added += folded("Message-ID", f"<{message_id}@{hostname}>")
    return added


def _is_forged(field: HeaderField, claims: re.Pattern[bytes]) -> bool:
    key = field.key
    if key.startswith(_OURS) or is_stray(field):
        return True
    if key != "authentication-results":
        return False
    named = _authserv_id(_lower(field.value))
    # Readers do not agree on whether a comment parts a word, so both readings count.
    return named is None or any(map(claims.search, (named, b"".join(named.split()))))


def _lower(value: bytes) -> bytes:
    if value.isascii():
        return value.lower()
    return value.decode(errors="surrogateescape").lower().encode(errors="surrogateescape")


def _authserv_id(value: bytes) -> bytes | None:
    """What stands before the first `;`: comments as spaces, quotes opened (RFC 8601 §2.2).

    None if that cannot be told: a comment or a quote without an end, or a backslash outside them.
    """
    found: list[bytes] = []
    depth, quoted = 0, False
    for match in _TOKEN.finditer(value):
        token = match[0]
        if depth:
            depth += (token == b"(") - (token == b")")
        elif token == b'"':
            quoted = not quoted
        elif quoted:
            found.append(token[1:] if token.startswith(b"\\") else token)
        elif token == b"(":
            depth = 1
            found.append(b" ")
        elif token == b";":
            break
        elif token.startswith(b"\\"):
            return None
        else:
            found.append(token)
    return None if depth or quoted else b"".join(found)


@lru_cache(maxsize=8)
def _claims_to_be(hostname: str) -> re.Pattern[bytes]:
    spellings = {hostname.lower(), unicode_domain(hostname.lower())}
    names = b"|".join(re.escape(name.encode()) for name in sorted(spellings))
    return re.compile(rb"(?<![a-z0-9.-])(?:" + names + rb")(?![a-z0-9.-])")


def _policy_field(field: PolicyField) -> bytes:
    """A field as policy folded it; one that is not folded right is folded here."""
    if _FOLDED_VALUE.fullmatch(field.value):
        return f"{field.name}: {field.value}\r\n".encode()
    return folded(field.name, field.value, utf8=True)
