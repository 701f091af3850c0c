"""What was authenticated of a mail: the ground on which DMARC stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What was authenticated: the domains that SPF and DKIM passed for."""

    spf: str = ""
    dkim: tuple[str, ...] = ()
    incomplete: bool = False
    """Some SPF or DKIM result could not be told just now."""
