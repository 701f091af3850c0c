"""What is compared: a mail server that takes mail on a port and passes it on to a sink."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Name(StrEnum):
    """The contenders, in the order of the tables."""

    GATEPOST = "Gatepost"
    POSTFIX = "Postfix bare"
    POSTFIX_SPF_DKIM = "Postfix, policyd-spf, opendkim"
    POSTFIX_RSPAMD = "Postfix, rspamd"
    POSTFIX_SIGNING = "Postfix, opendkim signing"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every contender is given."""

    folder: Path
    """Its own, to keep everything in; others may enter it."""
    sink_port: int
    dns_port: int


class Contender(Protocol):
    """One mail server. `start` returns when it takes mail."""

    name: Name
    port: int
    evidence: tuple[str, ...]
    """What the header of a delivered mail says, if it made the checks that it is here for."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def roots(self) -> list[int]:
        """The processes whose families are the contender."""
        ...

    def members(self) -> dict[str, int]:
        """Processes of it whose CPU time is told apart, by name."""
        ...
