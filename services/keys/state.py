"""The life of a key as a table: what may happen in which state, and what state follows.

    pending → published → active → retiring → retired → deleted

Pure: whether a record was seen, or a time has passed, is for others to find out. Why the steps are
as they are: a selector that receivers cannot look up makes every signature invalid, so a key signs
only after its record was seen (or after an operator said that he knows better). Mail that was
signed yesterday is verified today, so a record stays after its key ceased to sign. A selector is
never used twice, because receivers and their caches remember the old record: a deleted key leaves
its name behind.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class KeyState(StrEnum):
    """Where a key stands in its life."""

    PENDING = "pending"
    """Made; its record was not seen at every server."""
    PUBLISHED = "published"
    """Its record was seen at every authoritative server."""
    ACTIVE = "active"
    """It signs."""
    RETIRING = "retiring"
    """It no longer signs; mail that it signed may be under way."""
    RETIRED = "retired"
    """Its record may be removed."""
    DELETED = "deleted"
    """The private key is gone; what is left is the memory that the selector was used."""


class Step(StrEnum):
    """What can happen to a key."""

    SEEN = "seen"
    """Every authoritative server serves its record."""
    UNSEEN = "unseen"
    """Some authoritative server says that it does not."""
    ACTIVATE = "activate"
    """It shall sign, and its record was seen just now."""
    ACTIVATE_UNSEEN = "activate unseen"
    """It shall sign, whatever the DNS says: an operator overrides."""
    RETIRE = "retire"
    """It shall sign no more."""
    AGED = "aged"
    """No mail that it signed can be under way any more."""
    DELETE = "delete"
    """It shall be destroyed."""


class ForbiddenStepError(ValueError):
    """The state does not allow the step; the message is for whoever asked for it."""


_S = KeyState

TRANSITIONS: Final[Mapping[tuple[KeyState, Step], KeyState]] = {
    (_S.PENDING, Step.SEEN): _S.PUBLISHED,
    (_S.PENDING, Step.ACTIVATE): _S.ACTIVE,
    (_S.PENDING, Step.ACTIVATE_UNSEEN): _S.ACTIVE,
    # It never signed, so nothing that it signed is under way.
    (_S.PENDING, Step.RETIRE): _S.RETIRED,
    (_S.PENDING, Step.DELETE): _S.DELETED,
    (_S.PUBLISHED, Step.UNSEEN): _S.PENDING,
    (_S.PUBLISHED, Step.ACTIVATE): _S.ACTIVE,
    (_S.PUBLISHED, Step.ACTIVATE_UNSEEN): _S.ACTIVE,
    (_S.PUBLISHED, Step.RETIRE): _S.RETIRED,
    (_S.ACTIVE, Step.RETIRE): _S.RETIRING,
    (_S.RETIRING, Step.AGED): _S.RETIRED,
    (_S.RETIRED, Step.DELETE): _S.DELETED,
}

# A key that signs goes on when its record vanishes: mail without a signature would be worse, and a
# server that answers wrongly for a minute must not stop it. It is said loudly instead.
UNCHANGED: Final = frozenset(
    {
        (_S.PUBLISHED, Step.SEEN),
        (_S.PENDING, Step.UNSEEN),
        (_S.ACTIVE, Step.SEEN),
        (_S.ACTIVE, Step.UNSEEN),
        # Asked for twice: the answer of the first call may have been lost.
        (_S.ACTIVE, Step.ACTIVATE),
        (_S.ACTIVE, Step.ACTIVATE_UNSEEN),
        (_S.RETIRING, Step.RETIRE),
        (_S.RETIRED, Step.RETIRE),
    }
)


def after(state: KeyState, step: Step) -> KeyState:
    """The state that follows. Raises `ForbiddenStepError`."""
    if (state, step) in UNCHANGED:
        return state
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise ForbiddenStepError(_refusal(state, step)) from None


def _refusal(state: KeyState, step: Step) -> str:
    if step is Step.DELETE:
        return f"the key is {state}; only a pending or retired key can be deleted"
    if step in (Step.ACTIVATE, Step.ACTIVATE_UNSEEN):
        return f"the key is {state}, and a key that signed once cannot sign again; make a new one"
    return f"the key is {state}; it cannot {step}"
