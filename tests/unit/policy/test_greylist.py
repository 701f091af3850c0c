"""Greylisting: when what was seen before may pass."""

from datetime import UTC, datetime, timedelta

import pytest

from services.common.config.policy import Greylist as Settings
from services.policy.greylist import Seen, judge, key_of
from tests.support.subjects import envelope

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SETTINGS = Settings.model_validate({"delay": "5m", "retry_within": "2d"})


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


@pytest.mark.parametrize(
    ("seen", "admitted", "note"),
    [
        (None, False, Seen(passed=False, at=NOW)),
        (Seen(passed=False, at=ago(minutes=4)), False, None),
        (Seen(passed=False, at=ago(minutes=5)), True, Seen(passed=True, at=NOW)),
        (Seen(passed=False, at=ago(days=1)), True, Seen(passed=True, at=NOW)),
        (Seen(passed=False, at=ago(days=3)), False, Seen(passed=False, at=NOW)),
        (Seen(passed=True, at=ago(seconds=1)), True, None),
        (Seen(passed=True, at=ago(hours=23)), True, None),
        (Seen(passed=True, at=ago(days=6)), True, Seen(passed=True, at=NOW)),
        # A clock that was set back
        (Seen(passed=False, at=NOW + timedelta(hours=1)), False, None),
        (Seen(passed=True, at=NOW + timedelta(hours=1)), True, None),
    ],
)
def test_what_passes(seen: Seen | None, admitted: bool, note: Seen | None) -> None:
    assert judge(seen, NOW, SETTINGS) == (admitted, note)


@pytest.mark.parametrize(
    ("client", "sender", "recipient", "same"),
    [
        ("192.0.2.200", "ann@example.org", "you@example.test", True),
        ("192.0.2.1", "ANN@Example.org", "You@example.test", True),
        ("::ffff:192.0.2.7", "ann@example.org", "you@example.test", True),
        ("192.0.3.1", "ann@example.org", "you@example.test", False),
        ("192.0.2.1", "bob@example.org", "you@example.test", False),
        ("192.0.2.1", "ann@example.org", "me@example.test", False),
        ("192.0.2.1", "", "you@example.test", False),
        ("2001:db8::1", "ann@example.org", "you@example.test", False),
    ],
)
def test_what_is_the_same(client: str, sender: str, recipient: str, same: bool) -> None:
    known = key_of(envelope("ann@example.org", client="192.0.2.1"), "you@example.test")
    assert (key_of(envelope(sender, client=client), recipient) == known) == same


def test_any_text_makes_a_key() -> None:
    key = key_of(envelope("\ud800 * > .", client="2001:db8::1"), "\x00 weird")
    assert set(key) <= set("greylist.0123456789abcdef")
    neighbours = {key_of(envelope("a@b.c", client=f"2001:db8::{n}"), "x") for n in (1, 2)}
    assert len(neighbours) == 1
