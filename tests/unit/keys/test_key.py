"""Keys as values: their text form, and what time and steps do to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.keys.key import Key, KeyDataError, KeyType, from_fields, to_fields
from services.keys.state import ForbiddenStepError, KeyState, Step

_MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_LATER = _MADE + timedelta(days=1)
_KEY = Key(
    domain="example.test",
    selector="s1",
    key_type=KeyType.ED25519,
    bits=256,
    public="MCowBQYDK2VwAyEA",
    created=_MADE,
)
_FULL = replace(
    _KEY,
    key_type=KeyType.RSA,
    bits=2048,
    state=KeyState.RETIRED,
    published=_MADE,
    activated=_LATER,
    retired=_LATER,
    expires=_LATER,
    request_id="7f0c: first try",
    predecessor="s0",
    revision=12,
)


@pytest.mark.parametrize("key", [_KEY, _FULL])
def test_the_text_form_is_read_back(key: Key) -> None:
    fields = to_fields(key)
    assert all(isinstance(value, str) and value for value in fields.values())
    assert from_fields(fields) == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("domain", ""),
        ("domain", "no domain"),
        ("domain", "../../etc"),
        ("selector", ""),
        ("selector", "a_b"),
        ("key-type", "dsa"),
        ("bits", "0"),
        ("bits", "512"),
        ("bits", "-1"),
        ("bits", "many"),
        ("bits", "9" * 30),
        ("public", ""),
        ("public", "%%%"),
        ("public", "AAAA" * 1000),
        ("state", "asleep"),
        ("created", ""),
        ("created", "yesterday"),
        ("expires", "2026-13-01T00:00:00Z"),
        ("predecessor", "-"),
        ("request-id", "x" * 200),
        ("request-id", "a\nb"),
        ("revision", ""),
    ],
)
def test_a_field_edited_to_garbage_is_named(name: str, value: str) -> None:
    fields = {**to_fields(_FULL), name: value}
    with pytest.raises(
        KeyDataError, match="request id" if name == "request-id" else name
    ) as caught:
        from_fields(fields)
    if value:
        assert value not in str(caught.value).split()


@pytest.mark.parametrize(
    ("steps", "state", "published", "activated", "retired"),
    [
        ([Step.SEEN], KeyState.PUBLISHED, True, False, False),
        ([Step.SEEN, Step.UNSEEN], KeyState.PENDING, False, False, False),
        ([Step.SEEN, Step.ACTIVATE], KeyState.ACTIVE, True, True, False),
        ([Step.ACTIVATE], KeyState.ACTIVE, True, True, False),
        ([Step.ACTIVATE_UNSEEN], KeyState.ACTIVE, False, True, False),
        ([Step.ACTIVATE, Step.RETIRE], KeyState.RETIRING, True, True, True),
        ([Step.ACTIVATE, Step.RETIRE, Step.AGED], KeyState.RETIRED, True, True, True),
        ([Step.RETIRE], KeyState.RETIRED, False, False, True),
        ([Step.RETIRE, Step.DELETE], KeyState.DELETED, False, False, True),
    ],
)
def test_steps_leave_their_times(
    steps: list[Step], state: KeyState, published: bool, activated: bool, retired: bool
) -> None:
    key = _KEY
    for step in steps:
        key = key.stepped(step, _LATER)
    assert key.state is state
    assert (key.published == _LATER, key.activated == _LATER) == (published, activated)
    assert (key.retired == _LATER) == retired
    assert key.revision == 1 + len(steps)


def test_a_step_that_changes_nothing_keeps_time_and_revision() -> None:
    active = _KEY.stepped(Step.ACTIVATE, _MADE)
    assert active.stepped(Step.ACTIVATE, _LATER) is active
    retiring = active.stepped(Step.RETIRE, _MADE)
    assert retiring.stepped(Step.RETIRE, _LATER) is retiring
    # Its signing ended when it was told to, not when its record was no longer needed.
    assert retiring.stepped(Step.AGED, _LATER).retired == _MADE


def test_a_forbidden_step_is_refused() -> None:
    with pytest.raises(ForbiddenStepError):
        _KEY.stepped(Step.AGED, _LATER)


@pytest.mark.parametrize(
    ("expires", "expired"),
    [(None, False), (_LATER, True), (_LATER + timedelta(seconds=1), False)],
)
def test_expiry(expires: datetime | None, expired: bool) -> None:
    assert replace(_KEY, expires=expires).expired(_LATER) is expired
