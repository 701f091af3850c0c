"""Remarks about a key for people: what to know, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from services.keys.key import DEFAULT_RSA_BITS, Key, KeyType
from services.keys.state import KeyState


def notes(key: Key, now: datetime, *, fault: str = "") -> list[str]:
    """The remarks, most urgent first; `fault` is what is wrong with the stored form."""
    return [*([f"the stored key is damaged: {fault}"] if fault else []), *_notes(key, now)]


def _notes(key: Key, now: datetime) -> Iterator[str]:
    ended = key.state in (KeyState.RETIRING, KeyState.RETIRED)
    if key.expired(now) and not ended:
        yield "expired; it goes on signing until another key is active and this one is retired"
    if key.key_type is KeyType.RSA:
        if key.bits < DEFAULT_RSA_BITS:
            yield (
                f"{key.bits} bits are weak: receivers may not trust the signatures;"
                f" {DEFAULT_RSA_BITS} are recommended"
            )
        elif key.bits > DEFAULT_RSA_BITS:
            yield f"{key.bits} bits make signing several times slower and the record longer"
    else:
        yield "many receivers cannot verify Ed25519 yet: keep an RSA key active beside it"
    match key.state:
        case KeyState.PENDING | KeyState.PUBLISHED if key.predecessor:
            yield (
                f"made to replace {key.predecessor}: publish the record, and it takes over when"
                " that key expires"
            )
        case KeyState.PENDING:
            yield "publish the record, then activate the key"
        case KeyState.ACTIVE if key.published is None:
            yield "activated without its record being seen at every authoritative server"
        case KeyState.RETIRING:
            yield "keep the record published: mail signed with it may still be under way"
        case KeyState.RETIRED:
            yield "the record may be removed from the DNS"
