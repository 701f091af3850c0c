"""What is due for the keys of a domain, as time passes. Pure: keys and a time in, chores out.

Reasons behind the rules. A successor is made before its predecessor expires, because somebody has
to publish its record, and people need days for that. It takes over at the expiry and not before, so
that keys live as long as was asked for; until its record is visible the expired key goes on
signing, because mail without a good signature is worse than mail signed with an old key. A record
must outlive its key: mail that was signed last may wait in our queue, and then in somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.keys.key import Key
from services.keys.state import KeyState

LONGEST_LEAD: Final = timedelta(days=14)
"""How long before the expiry a successor is made."""
LEAD_PART: Final = 4
"""Or a quarter of the key's life, where that is shorter."""
FOREIGN_QUEUE: Final = timedelta(days=5)
"""How long another server keeps trying with what we gave it (RFC 5321 §4.5.4.1: at least 4 to 5
days)."""


class Chore(StrEnum):
    """What can be due."""

    MAKE_SUCCESSOR = "make a successor"
    TAKE_OVER = "let the successor take over"
    RETIRE_EXPIRED = "retire, since another key signs"
    MOURN = "say that an expired key goes on signing"
    END_RETIREMENT = "the record may be removed"


@dataclass(frozen=True, slots=True)
class Due:
    """A chore, and the keys that it is about."""

    chore: Chore
    key: Key
    successor: Key | None = None


def due(keys: Iterable[Key], *, now: datetime, queue_age: timedelta) -> list[Due]:
    """The chores for the keys of one domain. `queue_age` is how old mail in our queue can become.

    One that is done, and its result told, is not due again.
    """
    known = sorted(keys, key=lambda key: (key.created, key.selector))
    chores: list[Due] = []
    for key in known:
        if _outlived(key, now - queue_age - FOREIGN_QUEUE):
            chores.append(Due(Chore.END_RETIREMENT, key))
        if _is_expiring(key, now):
            chores += _expiring(key, known, now)
    return chores


def _outlived(key: Key, signed_last: datetime) -> bool:
    """Whether it ceased to sign by then."""
    retired = key.retired if key.state is KeyState.RETIRING else None
    return retired is not None and retired <= signed_last


def _is_expiring(key: Key, now: datetime) -> bool:
    expires = key.expires if key.state is KeyState.ACTIVE else None
    return expires is not None and now >= expires - lead(key)


def lead(key: Key) -> timedelta:
    """How long before its expiry the key needs a successor."""
    return min(LONGEST_LEAD, key.lifetime / LEAD_PART)


def _expiring(key: Key, known: Sequence[Key], now: datetime) -> Iterator[Due]:
    replacing = _other_signer(key, known, now)
    successor = _successor(key, known)
    if replacing is not None:
        # Somebody rotated by hand, or another replica was quicker.
        if key.expired(now):
            yield Due(Chore.RETIRE_EXPIRED, key, replacing)
        return
    if successor is None:
        yield Due(Chore.MAKE_SUCCESSOR, key)
    if key.expired(now):
        if successor is not None:
            yield Due(Chore.TAKE_OVER, key, successor)
        yield Due(Chore.MOURN, key, successor)


def _other_signer(key: Key, known: Sequence[Key], now: datetime) -> Key | None:
    """A key of the same type that signs and will go on signing."""
    for other in known:
        signs = other.state is KeyState.ACTIVE and not other.expired(now)
        if signs and other.key_type is key.key_type and other.id != key.id:
            return other
    return None


def _successor(key: Key, known: Sequence[Key]) -> Key | None:
    """The key that was made to replace this one and can."""
    for other in known:
        if other.predecessor == key.selector and other.state in (
            KeyState.PENDING,
            KeyState.PUBLISHED,
        ):
            return other
    return None
