"""The body hashes that the signatures of a header ask for, made while the body comes in.

RFC 6376 §3.5 (`c=`, `l=`) and RFC 8617 §4.1.2 (ARC-Message-Signature has the same tags). Policy
verifies the signatures but never sees the body, so each canonicalisation and length that one of
them names is hashed here, once. A mail without signatures costs nothing.

Refuses: more than `MAX_DIGESTS` different hashes, since each is work for every octet of the body;
of hundreds of signatures the later ones are left without a digest, and policy treats those as not
verified. What cannot be parsed is no signature that could pass, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gatepost.policy.v1.policy_pb2 import BodyDigest
from services.common.mail.body_hash import BodyHash, Canonicalization
from services.common.mail.message import HeaderBlock

MAX_DIGESTS: Final = 8
"""Mail has one to four signatures, most of them with the same canonicalisation and no length."""

_SIGNATURES: Final = frozenset({"dkim-signature", "arc-message-signature"})
_TAGS: Final = re.compile(rb"(?:^|;)\s*([cl])\s*=\s*([^;]*)")
_WHITE_SPACE: Final = re.compile(rb"\s+")
_MAX_LENGTH_DIGITS: Final = 19
"""RFC 6376 §3.5 allows 76; no content that can be stored has more octets than this can tell."""

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
    wanted: dict[_Wanted, None] = {}
    for field in header.fields:
        if field.key in _SIGNATURES and len(wanted) < MAX_DIGESTS:
            found = _wanted_by(field.value)
            if found is not None:
                wanted[found] = None
    return tuple(wanted)


def _wanted_by(signature: bytes) -> _Wanted | None:
    tags = {name: _WHITE_SPACE.sub(b"", value) for name, value in _TAGS.findall(signature)}
    # "simple/relaxed": the part after the slash is the body's; without one it is simple.
    body = tags.get(b"c", b"").partition(b"/")[2] or b"simple"
    length = tags.get(b"l")
    try:
        kind = Canonicalization(body.decode("ascii"))
    except ValueError:
        return None
    if length is None:
        return kind, None
    if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        return None
    return kind, int(length)


def _result(body_hash: BodyHash) -> BodyDigest:
    digest = body_hash.digest()
    return BodyDigest(
        canonicalization=body_hash.canonicalization,
        hash_algorithm="sha256",
        digest=digest,
        covered_octets=body_hash.covered_octets,
        total_octets=body_hash.total_octets,
    )
