"""Whether an ARC chain is whole: RFC 8617 §5.2, steps 4 to 6.

The newest message signature must be valid, and so must every seal. Nothing of it costs more than a
look-up for each sealer and one verification with a key of bounded size for each set.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from services.common.dns import Answer, RecordType, Resolver, Status
from services.policy.arc.result import NO_CHAIN, ArcResult
from services.policy.arc.sets import (
    ArcSet,
    BadChain,
    has_arc,
    parse_message_signature,
    read_sets,
)
from services.policy.dkim.key import verifies, verifies_octets
from services.policy.dkim.signature import BadSignature, Signature
from services.policy.dkim.syntax import canonical_field, canonical_signature
from services.policy.dkim.verification import check_body, header_digest, key_of
from services.policy.subject import Mail


async def verify_chain(mail: Mail, resolver: Resolver) -> ArcResult:
    """Verify the chain of a mail."""
    if not has_arc(mail.header):
        return NO_CHAIN
    sealers: tuple[str, ...] = ()
    try:
        sets = read_sets(mail.header)
        sealers = tuple(each.seal.domain for each in sets)
        newest = _newest_signature(sets)
        await mail.hash_body([(newest.body_canonicalization, newest.body_length)])
        keys = await _look_up([newest.key_name, *(each.seal.key_name for each in sets)], resolver)
        if any(answer.status is Status.TEMPORARY for answer in keys.values()):
            return ArcResult("temperror", "a key cannot be looked up just now", sealers)
        _check_newest(newest, mail, keys[newest.key_name])
        _check_seals(sets, keys)
    except BadChain as bad:
        return ArcResult("fail", str(bad), sealers)
    return ArcResult("pass", "", sealers, tuple(each.results for each in sets))


def _newest_signature(sets: Sequence[ArcSet]) -> Signature:
    last = sets[-1]
    try:
        return parse_message_signature(last.message_signature)
    except BadSignature as bad:
        why = f"the message signature of instance {last.instance} cannot be used: {bad.reason}"
        raise BadChain(why) from bad


async def _look_up(names: Sequence[str], resolver: Resolver) -> dict[str, Answer]:
    unique = list(dict.fromkeys(names))
    answers = await asyncio.gather(*(resolver.query(name, RecordType.TXT) for name in unique))
    return dict(zip(unique, answers, strict=True))


def _check_newest(signature: Signature, mail: Mail, answer: Answer) -> None:
    try:
        check_body(signature, mail)
        if not verifies(key_of(answer), signature, header_digest(signature, mail)):
            raise BadSignature("fail", "it does not fit the header")
    except BadSignature as bad:
        raise BadChain(f"the newest message signature is not valid: {bad.reason}") from bad


def _check_seals(sets: Sequence[ArcSet], keys: dict[str, Answer]) -> None:
    """§5.1.1: a seal is computed over the sets before it and its own, relaxed, in their order."""
    before = b""
    for each in sets:
        own = canonical_field(each.results, relaxed=True)
        own += canonical_field(each.message_signature, relaxed=True)
        sealed = before + own + canonical_signature(each.seal.field, relaxed=True)
        before += own + canonical_field(each.seal.field, relaxed=True)
        try:
            key = key_of(keys[each.seal.key_name])
            valid = verifies_octets(
                key, each.seal.signature, hashlib.sha256(sealed).digest(), each.seal.algorithm
            )
        except BadSignature as bad:
            raise BadChain(f"the seal of instance {each.instance}: {bad.reason}") from bad
        if not valid:
            raise BadChain(f"the seal of instance {each.instance} is not valid")
