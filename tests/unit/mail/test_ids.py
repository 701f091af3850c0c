"""Identifiers: unique, in order of time, and harmless wherever they are written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.mail import ids
from services.common.mail.ids import is_message_id, message_id, new_session_id, notification_id


def test_session_ids_are_short_unique_and_increase() -> None:
    made = [new_session_id() for _ in range(5000)]
    assert all(re.fullmatch(r"[0-9a-v]{16}", session) for session in made)
    assert len(set(made)) == len(made)
    assert made == sorted(made)


def test_session_ids_increase_while_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = ids.time.time_ns()
    clock = iter([now + 10**13, now + 10**13, now - 10**13, now])
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(clock))
    made = [new_session_id() for _ in range(4)]
    assert made == sorted(set(made))


def test_session_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ids.time.time_ns() + 10**15
    monkeypatch.setattr(ids.time, "time_ns", lambda: start)
    early = new_session_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: start + 10**7)
    assert early[:8] <= new_session_id()[:8]


def test_message_ids_number_the_transactions_of_a_session() -> None:
    session = new_session_id()
    assert message_id(session, 1) == f"{session}-1"
    assert message_id(session, 12) == f"{session}-12"
    assert is_message_id(message_id(session, 999_999))


@pytest.mark.parametrize(("session", "n"), [("abc", 0), ("abc", -1), ("", 1), ("a.b", 1)])
def test_no_message_id_without_session_and_number(session: str, n: int) -> None:
    with pytest.raises(ValueError, match="message id"):
        message_id(session, n)


def test_a_notification_has_the_same_id_however_often_it_is_made() -> None:
    first = notification_id("abc-1", "failed", "user@example.org")
    assert first == notification_id("abc-1", "failed", "user@example.org")
    assert first.startswith("n")
    assert is_message_id(first)
    # Fixed for good: another release must give the same id, or a restart would bounce twice.
    assert notification_id("abc-1", "failed") == "n2og3vssvkdh3iulybawyucdhng"


def test_different_notifications_have_different_ids() -> None:
    arguments = [
        ("abc-1", "failed"), ("abc-1", "delayed"), ("abc-2", "failed"), ("abc-1f", "ailed"),
        ("abc-1", "failed", ""), ("abc-1", "failed", "x"), ("abc-1", "failed", "x", "y"),
        ("abc-1", "failed", "xy"),
    ]  # fmt: skip
    assert len({notification_id(*each) for each in arguments}) == len(arguments)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("01h2k3m4n5p6q-1", True),
        ("abc", True),
        ("", False),
        ("-", False),
        ("-a", False),
        ("a-", False),
        ("a--b", False),
        ("A-1", False),
        ("a.b", False),
        ("a*", False),
        ("a>", False),
        ("a b", False),
        ("a-1\n", False),
        ("../a", False),
        ("a/b", False),
        ("é-1", False),
        ("٣-1", False),
        ("a" * 64, True),
        ("a" * 65, False),
    ],
)
def test_what_may_stand_as_an_id(text: str, valid: bool) -> None:
    assert is_message_id(text) is valid


@given(st.text(), st.text(), st.lists(st.text()))
def test_any_reason_gives_a_harmless_id(message: str, reason: str, parts: list[str]) -> None:
    assert is_message_id(notification_id(message, reason, *parts))
