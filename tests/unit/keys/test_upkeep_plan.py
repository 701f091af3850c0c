"""What is due for keys as time passes: one table over the life of a key with an expiry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.keys.key import Key, KeyType
from services.keys.state import KeyState
from services.keys.upkeep_plan import Chore, due, lead

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_QUEUE = _DAY


def _key(
    selector: str,
    state: KeyState,
    *,
    day: float = 0,
    life: float | None = None,
    retired: float | None = None,
    predecessor: str = "",
    key_type: KeyType = KeyType.RSA,
) -> Key:
    made = _T0 + day * _DAY
    return Key(
        domain="a.test",
        selector=selector,
        key_type=key_type,
        bits=2048 if key_type is KeyType.RSA else 256,
        public="AAAA",
        created=made,
        state=state,
        expires=None if life is None else made + life * _DAY,
        retired=None if retired is None else _T0 + retired * _DAY,
        predecessor=predecessor,
    )


_ACTIVE = KeyState.ACTIVE
_EXPIRING = _key("old", _ACTIVE, life=90)
_SUCCESSOR = {"day": 76, "life": 90, "predecessor": "old"}


@pytest.mark.parametrize(
    ("day", "others", "expected"),
    [
        (0, [], []),
        (75.9, [], []),
        # In time: somebody has to publish the record.
        (76, [], [Chore.MAKE_SUCCESSOR]),
        (76, [_key("new", KeyState.PENDING, **_SUCCESSOR)], []),
        (89.9, [_key("new", KeyState.PUBLISHED, **_SUCCESSOR)], []),
        # Then it takes over, and until it can the expired one signs, loudly.
        (90, [_key("new", KeyState.PUBLISHED, **_SUCCESSOR)], [Chore.TAKE_OVER, Chore.MOURN]),
        (90, [_key("new", KeyState.PENDING, **_SUCCESSOR)], [Chore.TAKE_OVER, Chore.MOURN]),
        (95, [], [Chore.MAKE_SUCCESSOR, Chore.MOURN]),
        (90, [_key("new", _ACTIVE, **_SUCCESSOR)], [Chore.RETIRE_EXPIRED]),
        # Rotated by hand, before or after the expiry.
        (76, [_key("hand", _ACTIVE, day=50)], []),
        (90, [_key("hand", _ACTIVE, day=50)], [Chore.RETIRE_EXPIRED]),
        # What does not help: another type, a key that nobody made for this, one that is no more.
        (76, [_key("ed", _ACTIVE, key_type=KeyType.ED25519)], [Chore.MAKE_SUCCESSOR]),
        (76, [_key("hand", KeyState.PENDING, day=50)], [Chore.MAKE_SUCCESSOR]),
        (76, [_key("new", KeyState.DELETED, **_SUCCESSOR)], [Chore.MAKE_SUCCESSOR]),
        (76, [_key("new", KeyState.RETIRED, **_SUCCESSOR)], [Chore.MAKE_SUCCESSOR]),
    ],
)
def test_expiry(day: float, others: list[Key], expected: list[Chore]) -> None:
    found = due([_EXPIRING, *others], now=_T0 + day * _DAY, queue_age=_QUEUE)
    assert [each.chore for each in found] == expected
    assert all(each.key == _EXPIRING for each in found)


def test_two_keys_that_expired_together_do_not_retire_each_other() -> None:
    keys = [_key("a", _ACTIVE, life=10), _key("b", _ACTIVE, life=10)]
    found = due(keys, now=_T0 + 20 * _DAY, queue_age=_QUEUE)
    assert Chore.RETIRE_EXPIRED not in {each.chore for each in found}


@pytest.mark.parametrize("state", [s for s in KeyState if s is not _ACTIVE])
def test_only_a_key_that_signs_is_replaced(state: KeyState) -> None:
    key = _key("old", state, life=1, retired=0)
    assert due([key], now=_T0 + 5 * _DAY, queue_age=_QUEUE) == []


def test_a_key_without_expiry_is_left_alone() -> None:
    assert due([_key("s", _ACTIVE)], now=_T0 + 10_000 * _DAY, queue_age=_QUEUE) == []


@pytest.mark.parametrize(
    ("life", "days"), [(365, 14), (90, 14), (56, 14), (28, 7), (4, 1), (None, 0)]
)
def test_a_successor_is_made_so_long_before(life: float | None, days: float) -> None:
    assert lead(_key("s", _ACTIVE, life=life)) == days * _DAY


@pytest.mark.parametrize(
    ("days_retired", "queue_age", "over"),
    [(5.9, _DAY, False), (6, _DAY, True), (6, 2 * _DAY, False), (7, 2 * _DAY, True)],
)
def test_a_record_stays_while_mail_may_be_under_way(
    days_retired: float, queue_age: timedelta, over: bool
) -> None:
    key = _key("s", KeyState.RETIRING, retired=10)
    found = due([key], now=_T0 + (10 + days_retired) * _DAY, queue_age=queue_age)
    assert [each.chore for each in found] == ([Chore.END_RETIREMENT] if over else [])
