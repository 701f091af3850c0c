"""Whether an ARC chain is whole: RFC 8617 §5.2, steps 4 to 6.

The newest message signature must be valid, and so must every seal. Nothing of it costs more than a
look-up for each sealer and one verification with a key of bounded size for each set. Then up to
`MAX_OLDER` older message signatures tell since when nothing was changed; whatever keeps one from
being verified, the chain is no worse for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from services.common.dns import Answer, RecordType, Resolver, Status
from services.common.turns import Turns
from services.policy.arc.result import NO_CHAIN, ArcResult
from services.policy.arc.sets import (
    ArcSet,
    BadChain,
    has_arc,
    parse_message_signature,
    read_sets,
)
from services.policy.checks.check import look_up_all
from services.policy.dkim.key import verifies, verifies_octets
from services.policy.dkim.signature import BadSignature, Signature
from services.policy.dkim.syntax import canonical_fields, canonical_signature
from services.policy.dkim.verification import check_body, header_digest, key_of
from services.policy.subject import Mail

MAX_OLDER = 10
"""Mail has passed one to three hands."""


async def verify_chain(mail: Mail, resolver: Resolver, *, turns: Turns | None = None) -> ArcResult:
    """Verify the chain of a mail. What comes after the chain itself takes `turns` with others."""
    if not has_arc(mail.header):
        return NO_CHAIN
    sealers: tuple[str, ...] = ()
    keys: dict[str, Answer] = {}
    try:
        sets = read_sets(mail.header)
        sealers = tuple(each.seal.domain for each in sets)
        newest = _newest_signature(sets)
        await mail.hash_body([(newest.body_canonicalization, newest.body_length)])
        older = _readable(reversed(sets[:-1][-MAX_OLDER:]))
        needed = [newest.key_name, *(each.seal.key_name for each in sets)]
        names = [*needed, *(each.key_name for each in older)]
        keys = await look_up_all(resolver, names, RecordType.TXT)
        if any(keys[name].status is Status.TEMPORARY for name in needed):
            why = "a key cannot be looked up just now"
            return ArcResult("temperror", why, sealers, keys=tuple(keys.values()))
        _check_newest(newest, mail, keys[newest.key_name], instance=sets[-1].instance)
        _check_seals(sets, keys)
    except BadChain as bad:
        return ArcResult("fail", str(bad), sealers, keys=tuple(keys.values()))
    valid = await _count_valid(older, mail, keys, turns or Turns())
    oldest = len(sets) - valid
    return ArcResult(
        "pass",
        sealers=sealers,
        testimonies=tuple(each.results for each in sets),
        oldest_pass=oldest if oldest > 1 else 0,
        keys=tuple(keys.values()),
    )


async def _count_valid(
    signatures: Sequence[Signature], mail: Mail, keys: dict[str, Answer], turns: Turns
) -> int:
    """How many are valid before the first that is not."""
    for count, signature in enumerate(signatures):
        await turns.next()
        try:
            _check_signature(signature, mail, keys[signature.key_name])
        except BadSignature:
            return count
    return len(signatures)


def _readable(sets: Iterable[ArcSet]) -> list[Signature]:
    """The message signatures, up to the first that cannot be read."""
    found: list[Signature] = []
    for each in sets:
        try:
            found.append(parse_message_signature(each.message_signature))
        except BadSignature:
            break
    return found


def _newest_signature(sets: Sequence[ArcSet]) -> Signature:
    last = sets[-1]
    try:
        return parse_message_signature(last.message_signature)
    except BadSignature as bad:
        why = f"the message signature of instance {last.instance} cannot be used: {bad.reason}"
        raise BadChain(why) from bad


def _check_newest(signature: Signature, mail: Mail, answer: Answer, *, instance: int) -> None:
    try:
        _check_signature(signature, mail, answer)
    except BadSignature as bad:
        why = f"the message signature of instance {instance} is not valid: {bad.reason}"
        raise BadChain(why) from bad


def _check_signature(signature: Signature, mail: Mail, answer: Answer) -> None:
    check_body(signature, mail)
    if not verifies(key_of(answer), signature, header_digest(signature, mail)):
        raise BadSignature("fail", "it does not fit the header")


def _check_seals(sets: Sequence[ArcSet], keys: dict[str, Answer]) -> None:
    """§5.1.1: a seal is computed over the sets before it and its own, relaxed, in their order."""
    before = b""
    for each in sets:
        own = canonical_fields((each.results, each.message_signature), relaxed=True)
        sealed = before + own + canonical_signature(each.seal.field, relaxed=True)
        before += own + canonical_fields((each.seal.field,), relaxed=True)
        try:
            key = key_of(keys[each.seal.key_name])
            valid = verifies_octets(
                key, each.seal.signature, hashlib.sha256(sealed).digest(), each.seal.algorithm
            )
        except BadSignature as bad:
            raise BadChain(f"the seal of instance {each.instance}: {bad.reason}") from bad
        if not valid:
            raise BadChain(f"the seal of instance {each.instance} is not valid")
