"""ARC Sets: RFC 8617 §4.2, each of three fields with the same instance number.

The structure is judged before anything is looked up (§5.2, steps 1 to 3): instances from 1 without
a gap, one field of each kind, at most `MAX_SETS`, a chain that says of itself that it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from services.common.mail.message import HeaderBlock, HeaderField
from services.policy.dkim.signature import (
    BadSignature,
    Signature,
    parse_fields,
    read_algorithm,
    read_base64,
    read_name,
)
from services.policy.dkim.syntax import TagError, parse_tags, without_white_space

MAX_SETS = 50
"""RFC 8617 §4.2.1"""

MAX_OCTETS = 128 * 1024
"""Of all ARC fields together; each seal is computed over all that stand before it."""

AUTHENTICATION_RESULTS = "arc-authentication-results"
MESSAGE_SIGNATURE = "arc-message-signature"
SEAL = "arc-seal"
_KINDS = (AUTHENTICATION_RESULTS, MESSAGE_SIGNATURE, SEAL)

ABSENT = "arc-nothing"
"""A name that no field has, to sign none."""

_INSTANCE = re.compile(r"[1-9][0-9]?")
_AAR_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]+)[ \t\r\n]*;")


class BadChain(ValueError):
    """The chain is not whole; the message says where."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What an ARC-Seal says."""

    field: HeaderField
    algorithm: str
    signature: bytes
    domain: str
    selector: str
    cv: str

    @property
    def key_name(self) -> str:
        """Where the key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One hop."""

    instance: int
    results: HeaderField
    message_signature: HeaderField
    seal: Seal


def has_arc(header: HeaderBlock) -> bool:
    """Whether there is any ARC field."""
    return any(map(header.has, _KINDS))


def read_sets(header: HeaderBlock) -> list[ArcSet]:
    """The sets in the order of their instances. Raises `BadChain`."""
    fields = [field for field in header.fields if field.key in _KINDS]
    if sum(len(field.raw) for field in fields) > MAX_OCTETS:
        raise BadChain("the ARC fields are too long")
    by_kind: dict[str, dict[int, HeaderField]] = {kind: {} for kind in _KINDS}
    for field in fields:
        instance = _READERS[field.key](field)
        if instance in by_kind[field.key]:
            raise BadChain(f"two {field.name} fields of instance {instance}")
        by_kind[field.key][instance] = field
    count = max((max(found, default=0) for found in by_kind.values()), default=0)
    sets = [_set(instance, by_kind) for instance in range(1, count + 1)]
    for each in sets:
        wanted = "none" if each.instance == 1 else "pass"
        if each.seal.cv != wanted:
            raise BadChain(f"the seal of instance {each.instance} says cv={each.seal.cv}")
    return sets


def parse_message_signature(field: HeaderField) -> Signature:
    """What an ARC-Message-Signature says; its `i=` is no identity. Raises `BadSignature`."""
    try:
        tags = parse_tags(field.raw.partition(b":")[2])
    except TagError as error:
        raise BadSignature("neutral", str(error)) from error
    tags.pop("i", None)
    # Deviation: what has no c= was meant to be relaxed, and gaps in h= to be none; everybody else
    # reads it so.
    tags.setdefault("c", "relaxed/relaxed")
    names = [name for name in without_white_space(tags.get("h", "")).split(":") if name]
    signature = parse_fields(field, {**tags, "h": ":".join(names) or ABSENT})
    if SEAL in signature.signed_names:
        raise BadSignature("permerror", "an ARC-Message-Signature signs seals")
    return signature


def _set(instance: int, by_kind: dict[str, dict[int, HeaderField]]) -> ArcSet:
    missing = [kind for kind, found in by_kind.items() if instance not in found]
    if missing:
        raise BadChain(f"instance {instance} has no {missing[0]}")
    results, signature, seal = (by_kind[kind][instance] for kind in _KINDS)
    return ArcSet(instance, results, signature, _seal(seal, instance))


def _seal(field: HeaderField, instance: int) -> Seal:
    try:
        tags = parse_tags(field.raw.partition(b":")[2])
        if "h" in tags:
            raise BadChain(f"the seal of instance {instance} has h=")
        return Seal(
            field,
            read_algorithm(tags),
            read_base64(tags, "b"),
            read_name(tags, "d"),
            read_name(tags, "s"),
            tags.get("cv", "").lower(),
        )
    except TagError as error:
        raise BadChain(f"the seal of instance {instance} is {error}") from error
    except BadSignature as bad:
        why = f"the seal of instance {instance} cannot be used: {bad.reason}"
        raise BadChain(why) from bad


def _tagged_instance(field: HeaderField) -> int:
    try:
        value = parse_tags(field.raw.partition(b":")[2]).get("i", "")
    except TagError as error:
        raise BadChain(f"{field.name} is {error}") from error
    return _instance(field, value)


def _results_instance(field: HeaderField) -> int:
    match = _AAR_INSTANCE.match(field.raw.partition(b":")[2])
    return _instance(field, match[1].decode() if match else "")


def _instance(field: HeaderField, value: str) -> int:
    if not _INSTANCE.fullmatch(value) or int(value) > MAX_SETS:
        raise BadChain(f"{field.name} has no instance between 1 and {MAX_SETS}")
    return int(value)


_READERS: dict[str, Callable[[HeaderField], int]] = {
    AUTHENTICATION_RESULTS: _results_instance,
    MESSAGE_SIGNATURE: _tagged_instance,
    SEAL: _tagged_instance,
}
