"""What was authenticated of a mail: the ground on which DMARC stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Identifier(NamedTuple):
    """A domain that a method passed for."""

    method: str
    """`spf` or `dkim`."""
    domain: str

    def __str__(self) -> str:
        return f"{self.method}={self.domain}"


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What was authenticated: the domains that SPF and DKIM passed for."""

    spf: str = ""
    dkim: tuple[str, ...] = ()
    incomplete: bool = False
    """Some SPF or DKIM result could not be told just now."""

    @property
    def named(self) -> list[Identifier]:
        """Each of them once, with its method."""
        spf = [Identifier("spf", self.spf)] if self.spf else []
        return spf + [Identifier("dkim", domain) for domain in dict.fromkeys(self.dkim)]
