"""What became of an ARC chain."""

from __future__ import annotations

from dataclasses import dataclass

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


NO_CHAIN = ArcResult("none")
