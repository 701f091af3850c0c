"""The duty to sign the mail of a domain: what is remembered of it apart from the keys themselves.

A key that vanishes from its store leaves nothing behind that says that it signed. So that its
domain's mail is not sent unsigned for that, the store has a register besides, with a line for each
domain: which keys sign for it. Nothing in it is private.

The text form is one line of selectors; a hyphen before one says that the key is lost and was given
up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from services.common.mail.domain import AddressError, parse_domain
from services.keys.key import Key
from services.keys.selector import SelectorError, parse_selector
from services.keys.state import KeyState

UNKNOWN: Final = "?"
"""Stands for what somebody wrote into the register that is no selector: some key has to sign."""
_GIVEN_UP: Final = "-"
_ENDED: Final = frozenset({KeyState.RETIRING, KeyState.RETIRED, KeyState.DELETED})


@dataclass(frozen=True, slots=True)
class Duty:
    """What the register says of a domain."""

    signing: frozenset[str] = frozenset()
    """The selectors of the keys that sign; while there is one, mail must not go out unsigned."""
    given_up: frozenset[str] = frozenset()
    """Those of keys that were lost and that nobody waits for any more: used all the same."""

    @property
    def selectors(self) -> frozenset[str]:
        """All that it names."""
        return (self.signing | self.given_up) - {UNKNOWN}

    def missing(self, keys: Iterable[Key]) -> frozenset[str]:
        """Those that should sign and do not, although nobody ended that; `keys` are the domain's.

        A key that is there and was never retired is one from an old backup.
        """
        states = {key.selector: key.state for key in keys}
        return frozenset(
            selector
            for selector in self.signing
            if states.get(selector) not in _ENDED | {KeyState.ACTIVE}
        )

    def brought_up_to(self, keys: Iterable[Key]) -> Duty:
        """The duty that follows from the states of the domain's keys.

        A key that is not there is no reason to take anything back: that is what this is for.
        """
        known = tuple(keys)
        active = {key.selector for key in known if key.state is KeyState.ACTIVE}
        ended = {key.selector for key in known if key.state in _ENDED}
        return Duty((self.signing | active) - ended, self.given_up - active)

    def without(self, selector: str, *, is_lost: bool) -> Duty:
        """The duty when one key need not sign any more."""
        lost = {selector} - {UNKNOWN} if is_lost else set()
        return Duty(self.signing - {selector}, self.given_up | lost)

    def ended(self, keys: Iterable[Key]) -> Duty:
        """No duty any more; what is lost is given up."""
        there = {key.selector for key in keys}
        return Duty(frozenset(), self.given_up | (self.signing - there - {UNKNOWN}))


def format_duty(duty: Duty) -> str:
    """The text form; blank for no duty."""
    given_up = (_GIVEN_UP + selector for selector in sorted(duty.given_up))
    return " ".join([*sorted(duty.signing), *given_up])


def parse_duty(text: str) -> Duty:
    """The duty that the text form tells of. What cannot be read counts as a key that signs."""
    signing: set[str] = set()
    given_up: set[str] = set()
    for word in text.split():
        selector = word.removeprefix(_GIVEN_UP)
        try:
            (given_up if selector != word else signing).add(parse_selector(selector))
        except SelectorError:
            signing.add(UNKNOWN)
    return Duty(frozenset(signing), frozenset(given_up - signing))


def read_register(lines: Mapping[str, str]) -> dict[str, Duty]:
    """The duties by domain; a name that is no domain is nobody's."""
    duties: dict[str, Duty] = {}
    for name, text in lines.items():
        with suppress(AddressError):
            duties[parse_domain(name)] = parse_duty(text)
    return duties
