"""`policy`, `domains`, `recipients`: how mail is judged and for whom it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from services.common.config.types import Domain, Section


class Action(StrEnum):
    """What to do when a check objects."""

    ACCEPT = "accept"
    SPAM = "spam"
    REFUSE = "refuse"


class Unavailable(StrEnum):
    """What the ingress does when policy does not answer."""

    DEFER = "defer"
    ACCEPT = "accept"


class Actions(Section):
    """What to do with mail that a check objects to."""

    helo_mismatch: Action = Action.SPAM
    invalid_sender: Action = Action.SPAM
    spf_mismatch: Action = Action.SPAM


class Spf(Section):
    """Sender Policy Framework (RFC 7208)."""

    mismatch_results: Annotated[tuple[str, ...], Field()] = ("fail", "softfail", "permerror")
    """The results that count as a mismatch."""


class Policy(Section):
    """The checks."""

    actions: Actions = Actions()
    spf: Spf = Spf()
    unavailable: Unavailable = Unavailable.DEFER


class Domains(Section):
    """Whose mail we take."""

    local: tuple[Domain, ...] = ()
    """Domains with mailboxes here."""
    relay: dict[Domain, str] = {}
    """Domains whose mail we pass on, each with its next hop, `smtp:host:port`."""


class Recipients(Section):
    """Recipients in local domains."""

    refuse_unknown: bool = False
    auto_create: bool = False
    catch_all: str = ""
