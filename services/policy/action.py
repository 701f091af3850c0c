"""The actions of a verdict."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """What a verdict does with a mail, from mildest to strongest; the numbers of the protos."""

    ACCEPT = 1
    SPAM = 2
    DEFER = 3
    REFUSE = 4
