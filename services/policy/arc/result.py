"""What became of an ARC chain."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.dns import Answer
from services.common.mail.message import HeaderField


@dataclass(frozen=True, slots=True)
class ArcResult:
    """What became of the chain. `result` is a word of RFC 8617 §4.4 or `temperror`."""

    result: str
    reason: str = ""
    sealers: tuple[str, ...] = ()
    """Who sealed, from the first to the last."""
    testimonies: tuple[HeaderField, ...] = ()
    """Their ARC-Authentication-Results, in the same order; only of a chain that is whole."""
    oldest_pass: int = 0
    """Of a chain that is whole: the first instance since which nothing was changed (§5.2, step 5);
    0 when that is so since before the first one."""
    keys: tuple[Answer, ...] = ()
    """The look-ups of the keys."""


NO_CHAIN = ArcResult("none")
