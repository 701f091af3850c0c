"""Verify the DKIM signatures of a mail: RFC 6376 §6.1, results in the words of RFC 8601 §2.7.1.

Guarantees: at most `MAX_SIGNATURES` are looked at, from the top, and each costs one look-up, one
hash over the header and one verification with a key of bounded size. A signature that leaves
content uncovered (`l=` shorter than the body, or a second From field that it does not sign) does
not count as valid: whoever added the rest could have written anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from services.common.dns import Answer, RecordType, Resolver, Status
from services.common.mail.message import HeaderField
from services.common.turns import Turns
from services.policy.checks.check import look_up_all
from services.policy.dkim.key import Key, parse_key, verifies
from services.policy.dkim.signature import BadSignature, Label, Signature, label_of, parse_signature
from services.policy.dkim.syntax import canonical_fields, canonical_signature, signed_fields
from services.policy.subject import Mail

MAX_SIGNATURES = 10
"""Mail has one to four. Those further down come from hops further back."""

FIELD = "DKIM-Signature"


@dataclass(frozen=True, slots=True)
class SignatureResult:
    """What became of one signature."""

    label: Label
    result: str
    """`pass`, `fail`, `policy`, `neutral`, `permerror` or `temperror`."""
    reason: str = ""
    """Why it did not pass."""
    bits: int = 0
    testing: bool = False
    """The key says that failures are tests (`t=y`)."""
    key: Answer | None = None
    """The look-up of the key."""

    @property
    def passed(self) -> bool:
        """Whether the signature is valid and covers the mail."""
        return self.result == "pass"

    @property
    def domain(self) -> str:
        """Who vouches (`d=`)."""
        return self.label.domain


async def verify_signatures(
    mail: Mail, resolver: Resolver, *, now: int, turns: Turns | None = None
) -> tuple[SignatureResult, ...]:
    """The result of each signature, from the top; `now` in seconds since 1970. All after the first
    take `turns` with others."""
    fields = mail.header.fields_named(FIELD)[:MAX_SIGNATURES]
    if not fields:
        return ()
    read = [_read(field, now) for field in fields]
    await mail.hash_body(_wanted(read))
    names = {each.key_name for each in read if isinstance(each, Signature)}
    answers = await look_up_all(resolver, names, RecordType.TXT)
    turns = turns or Turns()
    results: list[SignatureResult] = []
    for each in read:
        if isinstance(each, SignatureResult):
            results.append(each)
            continue
        if results:
            await turns.next()
        results.append(_verify(each, mail, answers[each.key_name]))
    return tuple(results)


def _read(field: HeaderField, now: int) -> Signature | SignatureResult:
    try:
        return parse_signature(field, now=now)
    except BadSignature as bad:
        return SignatureResult(label_of(field), bad.result, bad.reason)


def _wanted(read: Iterable[Signature | SignatureResult]) -> list[tuple[str, int | None]]:
    found = [each for each in read if isinstance(each, Signature)]
    return [(each.body_canonicalization, each.body_length) for each in found]


def _verify(signature: Signature, mail: Mail, answer: Answer) -> SignatureResult:
    if answer.status is Status.TEMPORARY:
        why = "the key cannot be looked up just now"
        return SignatureResult(signature.label, "temperror", why, key=answer)
    result, reason, bits, testing = "pass", "", 0, False
    try:
        key = key_of(answer)
        bits, testing = key.bits, key.testing
        check_body(signature, mail)
        digest = header_digest(signature, mail)
        if not verifies(key, signature, digest):
            raise BadSignature("fail", "the signature does not fit the header")
        _check_coverage(signature, mail)
    except BadSignature as bad:
        result, reason = bad.result, bad.reason
    return SignatureResult(signature.label, result, reason, bits, testing, answer)


def key_of(answer: Answer) -> Key:
    """The first record that is a key; of several, RFC 6376 §3.6.2.2 leaves the choice to us.

    Raises `BadSignature`.
    """
    texts = [record for record in answer.records if isinstance(record, bytes)]
    problem = BadSignature("permerror", "there is no key")
    for number, text in enumerate(texts):
        try:
            return parse_key(text)
        except BadSignature as bad:
            problem = bad if number == 0 else problem
    raise problem


def check_body(signature: Signature, mail: Mail) -> None:
    """Raises `BadSignature` for a body that is not the one that was signed."""
    digest = mail.body_digest(signature.body_canonicalization, signature.body_length)
    if digest is None:
        raise BadSignature("neutral", "the body was not hashed for this signature")
    if digest.digest != signature.body_hash:
        raise BadSignature("fail", "the body was changed")


def _check_coverage(signature: Signature, mail: Mail) -> None:
    digest = mail.body_digest(signature.body_canonicalization, signature.body_length)
    if digest is not None and digest.covered_octets < digest.total_octets:
        raise BadSignature("policy", "l= leaves a part of the body unsigned")
    if mail.header.count("From") > signature.signed_names.count("from"):
        raise BadSignature("policy", "a From field is not signed")


def header_digest(signature: Signature, mail: Mail) -> bytes:
    """The SHA-256 over the signed fields and the signature itself (RFC 6376 §3.7)."""
    relaxed = signature.relaxed_header
    fields = signed_fields(mail.header, signature.signed_names)
    hashed = hashlib.sha256(canonical_fields(fields, relaxed=relaxed))
    hashed.update(canonical_signature(signature.field, relaxed=relaxed))
    return hashed.digest()
