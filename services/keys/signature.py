"""DKIM-Signature fields for a header block: RFC 6376 §3.5 and §5, RFC 8463, RFC 8301.

relaxed/relaxed, SHA-256, one field for each key. Pure: the header, the body's hash and the time
come in, fields go out.

Which fields are signed: those that a reader or his program acts on. Most of them are signed once
more than they are there ("oversigned", RFC 6376 §8.15), so that a second From, or a Subject where
there was none, breaks the signature instead of riding on it. Fields that forwarders and lists add
or change as their job are signed only as they stand, or not at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from services.common.mail.message import FOLD_AT, HeaderBlock, HeaderField
from services.keys.canonical_header import relaxed
from services.keys.private_key import PrivateKey

FIELD_NAME: Final = "DKIM-Signature"
BODY_HASH_OCTETS: Final = 32

# In this order, in `h=`.
OVERSIGNED: Final = (
    "from",
    "reply-to",
    "subject",
    "date",
    "to",
    "cc",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
)
# Lists add Sender and List-… to what they pass on, and who resends a mail adds Resent-… above
# (RFC 6376 §5.4.1); RFC 8058 §4 wants List-Unsubscribe-Post covered.
SIGNED_IF_PRESENT: Final = (
    "sender",
    "content-id",
    "content-description",
    "content-disposition",
    "content-language",
    "autocrypt",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
    "resent-date",
    "resent-from",
    "resent-sender",
    "resent-to",
    "resent-cc",
    "resent-message-id",
)

_LINE_END: Final = "\r\n\t"
_BASE64_AT_ONCE: Final = FOLD_AT - len("\tb=")


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs, with the names that lead to its record."""

    domain: str
    selector: str
    private: PrivateKey


@dataclass(frozen=True, slots=True)
class SignatureField:
    """A finished field."""

    selector: str
    algorithm: str
    raw: bytes
    """With its name and CRLF."""


def sign(
    header: HeaderBlock,
    *,
    body_hash: bytes,
    signers: Sequence[Signer],
    at: int,
    lifetime: int = 0,
) -> tuple[SignatureField, ...]:
    """One field for each signer, in their order.

    `body_hash` is SHA-256 over the relaxed body; `at` is `t=`, seconds since 1970; `lifetime` is
    how many seconds later `x=` is, 0 for no `x=`.
    """
    names, covered = _covered(header)
    # What all signatures cover alike is hashed once.
    common = hashlib.sha256(covered)
    times = (f"t={at}", *([f"x={at + lifetime}"] if lifetime else []))
    bh = base64.b64encode(body_hash).decode("ascii")
    return tuple(_signed(signer, common, times=times, names=names, bh=bh) for signer in signers)


def _signed(
    signer: Signer,
    common: hashlib._Hash,
    *,
    times: tuple[str, ...],
    names: tuple[str, ...],
    bh: str,
) -> SignatureField:
    algorithm = signer.private.algorithm
    tags = _tags(algorithm, signer.domain, signer.selector, *times)
    unsigned = f"{tags}{_signed_names(names)}{_LINE_END}bh={bh};{_LINE_END}b=".encode("ascii")
    digest = common.copy()
    # Without the CRLF at its end (RFC 6376 §3.7).
    digest.update(relaxed(FIELD_NAME, unsigned)[:-2])
    text = base64.b64encode(signer.private.sign(digest.digest())).decode("ascii")
    lines = [text[at : at + _BASE64_AT_ONCE] for at in range(0, len(text), _BASE64_AT_ONCE)]
    raw = FIELD_NAME.encode() + b":" + unsigned + _LINE_END.join(lines).encode() + b"\r\n"
    return SignatureField(signer.selector, algorithm, raw)


def _covered(header: HeaderBlock) -> tuple[tuple[str, ...], bytes]:
    """The names for `h=`, and the canonical fields that they stand for, in that order.

    Of several fields with one name the lowest is taken first (RFC 6376 §5.4.2).
    """
    by_name: dict[str, list[HeaderField]] = {}
    for field in header.fields:
        by_name.setdefault(field.key, []).append(field)
    names: list[str] = []
    covered: list[bytes] = []
    for name, times_more in _SIGNED:
        present = by_name.get(name)
        if present is not None:
            names += [name] * len(present)
            covered += [relaxed(name, field.raw.partition(b":")[2]) for field in present[::-1]]
        names += times_more
    return tuple(names), b"".join(covered)


# Each name, and the names to list beyond those of the fields that are there.
_SIGNED: Final = (
    *((name, (name,)) for name in OVERSIGNED),
    *((name, ()) for name in SIGNED_IF_PRESENT),
)


# What is worked out once for many mails: the tags for a second, the names for ever.
@lru_cache(maxsize=64)
def _tags(algorithm: str, domain: str, selector: str, *times: str) -> str:
    """All tags before `h=`, with a line end after them."""
    tags = ("v=1", f"a={algorithm}", "c=relaxed/relaxed", f"d={domain}", f"s={selector}", *times)
    words = [f"{tag};" for tag in tags]
    return _folded(len(FIELD_NAME) + 1, words, between=" ") + _LINE_END


@lru_cache(maxsize=64)
def _signed_names(names: tuple[str, ...]) -> str:
    """The `h=` tag."""
    return _folded(1, _list_of_names(names), between="")


def _list_of_names(names: Sequence[str]) -> Iterable[str]:
    *others, last = names
    first = "h="
    for name in others:
        yield f"{first}{name}:"
        first = ""
    yield f"{first}{last};"


def _folded(indent: int, words: Iterable[str], *, between: str) -> str:
    """The words, with line ends between them where a line would become too long.

    `indent` is how much of the first line is taken already.
    """
    lines = [" " if between else ""]
    room = FOLD_AT - indent
    for word in words:
        gap = between if lines[-1].strip() else ""
        if lines[-1].strip() and len(lines[-1]) + len(gap) + len(word) > room:
            lines.append(word)
            room = FOLD_AT - 1
        else:
            lines[-1] += gap + word
    return _LINE_END.join(lines)
