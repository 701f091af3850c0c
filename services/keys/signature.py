"""DKIM-Signature fields for a header block: RFC 6376 §3.5 and §5, RFC 8463, RFC 8301.

relaxed/relaxed, SHA-256, one field for each key. Pure: the header's fields, the body's hash and the
time come in, fields go out. `signed_fields` says which fields are covered.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from services.common.mail.message import FOLD_AT
from services.keys.canonical_header import relaxed
from services.keys.private_key import PrivateKey
from services.keys.signed_fields import OVERSIGNED, SIGNED_IF_PRESENT, Fields

FIELD_NAME: Final = "DKIM-Signature"
BODY_HASH_OCTETS: Final = 32

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
    fields: Fields,
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
    counts, covered = _covered(fields)
    # What all signatures cover alike is hashed once.
    common = hashlib.sha256(covered)
    times = (f"t={at}", *([f"x={at + lifetime}"] if lifetime else []))
    bh = base64.b64encode(body_hash)
    return tuple(_signed(signer, common, times=times, counts=counts, bh=bh) for signer in signers)


def _signed(
    signer: Signer,
    common: hashlib._Hash,
    *,
    times: tuple[str, ...],
    counts: tuple[int, ...],
    bh: bytes,
) -> SignatureField:
    algorithm = signer.private.algorithm
    begin, canonical = _begin(algorithm, signer.domain, signer.selector, times, counts)
    digest = common.copy()
    # Without the CRLF at its end (RFC 6376 §3.7). A line end between two tags is one space.
    digest.update(b"%bbh=%b; b=" % (canonical, bh))
    text = base64.b64encode(signer.private.sign(digest.digest()))
    lines = [text[at : at + _BASE64_AT_ONCE] for at in range(0, len(text), _BASE64_AT_ONCE)]
    raw = b"%bbh=%b;\r\n\tb=%b\r\n" % (begin, bh, b"\r\n\t".join(lines))
    return SignatureField(signer.selector, algorithm, raw)


def _covered(fields: Fields) -> tuple[tuple[int, ...], bytes]:
    """How often each name is there, and the canonical fields in the order of `h=`.

    Of several fields with one name the lowest is taken first (RFC 6376 §5.4.2).
    """
    counts: list[int] = []
    covered: list[bytes] = []
    for name in _NAMES:
        values = fields.get(name)
        if values is None:
            counts.append(0)
        else:
            counts.append(len(values))
            covered += [relaxed(name, value) for value in reversed(values)]
    return tuple(counts), b"".join(covered)


_NAMES: Final = tuple(name.encode("ascii") for name in (*OVERSIGNED, *SIGNED_IF_PRESENT))


# What is worked out once for many mails: all before `bh=` for a second, the names for ever.
@lru_cache(maxsize=256)
def _begin(
    algorithm: str, domain: str, selector: str, times: tuple[str, ...], counts: tuple[int, ...]
) -> tuple[bytes, bytes]:
    """The field up to `bh=`, as it is written and in canonical form."""
    tags = ("v=1", f"a={algorithm}", "c=relaxed/relaxed", f"d={domain}", f"s={selector}", *times)
    words = [f"{tag};" for tag in tags]
    folded = _folded(len(FIELD_NAME) + 1, words, between=" ")
    value = f"{folded}{_LINE_END}{_signed_names(counts)}{_LINE_END}".encode("ascii")
    canonical = relaxed(FIELD_NAME.lower().encode("ascii"), value).removesuffix(b"\r\n")
    return FIELD_NAME.encode("ascii") + b":" + value, canonical + b" "


@lru_cache(maxsize=64)
def _signed_names(counts: tuple[int, ...]) -> str:
    """The `h=` tag: each name as often as it is there, and once more if it is oversigned."""
    names: list[str] = []
    for name, count in zip((*OVERSIGNED, *SIGNED_IF_PRESENT), counts, strict=True):
        names += [name] * (count + (name in OVERSIGNED))
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
