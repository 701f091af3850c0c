"""Which domains' mail has to be signed is remembered, whatever happens to the keys."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.keys.duty import UNKNOWN, Duty, format_duty, parse_duty, read_register
from services.keys.key import Key, KeyType
from services.keys.state import KeyState

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _key(selector: str, state: KeyState) -> Key:
    return Key(
        domain="a.test",
        selector=selector,
        key_type=KeyType.ED25519,
        bits=256,
        public="AAAA",
        created=_NOW,
        state=state,
    )


def _duty(signing: str = "", given_up: str = "") -> Duty:
    return Duty(frozenset(signing.split()), frozenset(given_up.split()))


@pytest.mark.parametrize(
    ("duty", "text"),
    [
        (_duty(), ""),
        (_duty("s1"), "s1"),
        (_duty("s2 s1", "old.a"), "s1 s2 -old.a"),
        (_duty(UNKNOWN), "?"),
    ],
    ids=["none", "one", "all", "unknown"],
)
def test_the_text_form_is_read_back(duty: Duty, text: str) -> None:
    assert format_duty(duty) == text
    assert parse_duty(text) == duty


@pytest.mark.parametrize(
    ("text", "duty"),
    [
        (" S1\t\n-Old ", _duty("s1", "old")),
        ("s1 %%%", _duty(f"s1 {UNKNOWN}")),
        ("-", _duty(UNKNOWN)),
        ("s1 -s1", _duty("s1")),
        ("\0\x1b[1m", _duty(UNKNOWN)),
    ],
    ids=["spelling", "garbage", "hyphen", "both", "controls"],
)
def test_what_cannot_be_read_is_a_duty(text: str, duty: Duty) -> None:
    assert parse_duty(text) == duty


def test_lines_of_what_is_no_domain_are_nobodys() -> None:
    lines = {"A.test": "s1", "not a domain": "s1", "_x.test": "s1", "b.test": ""}
    assert read_register(lines) == {"a.test": _duty("s1"), "b.test": _duty()}


@pytest.mark.parametrize(
    ("before", "states", "after"),
    [
        (_duty(), {}, _duty()),
        (_duty(), {"s1": KeyState.PENDING, "s2": KeyState.PUBLISHED}, _duty()),
        (_duty(), {"s1": KeyState.ACTIVE}, _duty("s1")),
        (_duty("s1"), {}, _duty("s1")),
        (_duty("s1"), {"s1": KeyState.PENDING}, _duty("s1")),
        (_duty("s1"), {"s1": KeyState.RETIRING}, _duty()),
        (_duty("s1"), {"s1": KeyState.RETIRED, "s2": KeyState.ACTIVE}, _duty("s2")),
        (_duty("s1"), {"s1": KeyState.DELETED}, _duty()),
        (_duty("", "s1"), {"s1": KeyState.ACTIVE}, _duty("s1")),
        (_duty("", "s1"), {"s1": KeyState.RETIRING}, _duty("", "s1")),
    ],
    ids=[
        "nothing",
        "not yet",
        "signs",
        "lost",
        "old backup",
        "retired on purpose",
        "rotated",
        "deleted",
        "given up and back",
        "given up",
    ],
)
def test_it_follows_the_keys_that_are_there(
    before: Duty, states: dict[str, KeyState], after: Duty
) -> None:
    keys = [_key(selector, state) for selector, state in states.items()]
    assert before.brought_up_to(keys) == after


@pytest.mark.parametrize(
    ("state", "missing"),
    [
        (None, {"s1"}),
        (KeyState.PENDING, {"s1"}),
        (KeyState.PUBLISHED, {"s1"}),
        (KeyState.ACTIVE, set()),
        (KeyState.RETIRING, set()),
        (KeyState.RETIRED, set()),
        (KeyState.DELETED, set()),
    ],
)
def test_what_is_missing_never_was_ended(state: KeyState | None, missing: set[str]) -> None:
    keys = [_key("s1", state)] if state else []
    assert _duty("s1").missing(keys) == missing


def test_an_end_gives_up_what_is_lost_and_forgets_no_selector() -> None:
    ended = _duty(f"s1 lost {UNKNOWN}", "older").ended([_key("s1", KeyState.RETIRING)])
    assert ended == _duty("", "lost older")
    assert _duty("s1 lost").without("lost", is_lost=True) == _duty("s1", "lost")
    assert _duty("s1 s2").without("s2", is_lost=False) == _duty("s1")
    assert _duty(f"s1 {UNKNOWN}", "old").selectors == {"s1", "old"}
