"""`submission`: mail from clients that log in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from services.common.config.types import Section


class SenderCheck(StrEnum):
    """What of a submitted mail must be the account's own address."""

    FULL = "full"
    ENVELOPE = "envelope"
    OFF = "off"


class Submission(Section):
    """Mail from clients that log in."""

    sender_check: SenderCheck = SenderCheck.FULL
    """`full`: the sender and the From field must be the account's address. `envelope`: the sender
    only. `off`: anybody who can log in may write in anybody's name."""
    recipients_per_hour: Annotated[int, Field(ge=0)] = 2000
    """How many recipients an account may send to in an hour: a stolen password must not empty the
    house. `0` is no limit."""
