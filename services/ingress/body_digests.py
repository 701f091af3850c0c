"""The body hashes that the signatures of a header ask for, made while the body comes in.

RFC 6376 §3.5 (`c=`, `l=`) and RFC 8617 §4.1.2 (ARC-Message-Signature has the same tags). Policy
verifies the signatures but never sees the body, so each canonicalisation and length that one of
those that it looks at names is hashed here, once. A mail without signatures costs nothing.

Refuses: more signatures than `MAX_SIGNATURES`, and of an ARC chain all but the newest, since each
hash is work for every octet of the body; policy verifies no more either. What cannot be parsed is
no signature that could pass, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from gatepost.policy.v1.policy_pb2 import BodyDigest
from services.common.mail.body_hash import BodyHash, Canonicalization
from services.common.mail.message import HeaderBlock, HeaderField

MAX_SIGNATURES: Final = 10
"""DKIM signatures from the top, as many as policy looks at. Mail has one to four, most of them with
the same canonicalisation and no length."""

_DKIM: Final = "DKIM-Signature"
_ARC: Final = "ARC-Message-Signature"
_DEFAULT_OF_ARC: Final = b"relaxed/relaxed"
"""Deviation: RFC 8617 has DKIM's default, but everybody means this one, and policy reads it so."""

_TAGS: Final = frozenset({b"c", b"i", b"l"})
_WHITE_SPACE: Final = re.compile(rb"\s+")
_LENGTH: Final = re.compile(rb"[0-9]{1,76}")
_LONGEST: Final = 10**18
"""No content that can be stored has more octets."""

_Wanted = tuple[Canonicalization, int | None]


class BodyDigests:
    """Hashes of one body. `update` with its blocks, then `results` once."""

    def __init__(self, header: HeaderBlock) -> None:
        self._hashes = [BodyHash(kind, limit) for kind, limit in wanted_digests(header)]

    def update(self, block: bytes) -> None:
        """The next octets of the body, without dot-stuffing."""
        for body_hash in self._hashes:
            body_hash.update(block)

    def results(self) -> list[BodyDigest]:
        """One digest for each hash that was wanted. The body ends here."""
        return [_result(body_hash) for body_hash in self._hashes]


def wanted_digests(header: HeaderBlock) -> Sequence[_Wanted]:
    """The canonicalisations and lengths that the signatures name, each once, from the top."""
    return tuple(dict.fromkeys(wanted for wanted in _all_wanted(header) if wanted is not None))


def _all_wanted(header: HeaderBlock) -> Iterator[_Wanted | None]:
    for field in header.fields_named(_DKIM)[:MAX_SIGNATURES]:
        yield _wanted_by(_tags(field), default=b"simple/simple")
    chain = [_tags(field) for field in header.fields_named(_ARC)]
    if chain:
        yield _wanted_by(max(chain, key=_instance), default=_DEFAULT_OF_ARC)


def _tags(field: HeaderField) -> dict[bytes, bytes]:
    tags = {}
    for part in field.value.split(b";"):
        name, found, value = part.partition(b"=")
        if found and (name := name.strip()) in _TAGS:
            tags[name] = _WHITE_SPACE.sub(b"", value)
    return tags


def _instance(tags: dict[bytes, bytes]) -> int:
    value = tags.get(b"i", b"")
    return int(value) if value.isdigit() and len(value) <= 2 else 0


def _wanted_by(tags: dict[bytes, bytes], *, default: bytes) -> _Wanted | None:
    # "simple/relaxed": the part after the slash is the body's; without one it is simple.
    body = tags.get(b"c", default).lower().partition(b"/")[2] or b"simple"
    length = tags.get(b"l")
    try:
        kind = Canonicalization(body.decode("ascii"))
    except ValueError:
        return None
    if length is None:
        return kind, None
    return (kind, min(int(length), _LONGEST)) if _LENGTH.fullmatch(length) else None


def _result(body_hash: BodyHash) -> BodyDigest:
    digest = body_hash.digest()
    return BodyDigest(
        canonicalization=body_hash.canonicalization,
        hash_algorithm="sha256",
        digest=digest,
        covered_octets=body_hash.covered_octets,
        total_octets=body_hash.total_octets,
    )
