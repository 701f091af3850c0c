"""What failed logins cost."""

import pytest

from services.ingress.login_failures import (
    FORGET_S,
    MAX_DELAY_S,
    Failures,
    decoded,
    delay_s,
    is_banned,
)

_NOW = 1_700_000_000.0


def _failed(times: int, at: float = _NOW) -> Failures:
    failures = Failures()
    for _ in range(times):
        failures = failures.another(at)
    return failures


BANS = [
    (_failed(9), _NOW, False),
    (_failed(10), _NOW, True),
    (_failed(10), _NOW + 899, True),
    (_failed(10), _NOW + 900, False),
    (_failed(10).another(_NOW + 1000), _NOW + 1000, True),
    (_failed(500), _NOW + FORGET_S, False),
]


@pytest.mark.parametrize(("failures", "now", "banned"), BANS)
def test_bans(failures: Failures, now: float, banned: bool) -> None:
    assert is_banned(failures, now, limit=10, ban_s=900) is banned


def test_answers_come_later_and_later_up_to_a_bound() -> None:
    delays = [delay_s(_failed(count), Failures()) for count in range(1, 30)]
    assert delays == sorted(delays)
    assert delays[0] < delays[1] < delays[2]
    assert delays[-1] == MAX_DELAY_S


def test_guesses_at_an_account_from_everywhere_are_slow_too() -> None:
    assert delay_s(_failed(1), _failed(3)) == delay_s(_failed(1), Failures())
    assert delay_s(_failed(1), _failed(20)) == MAX_DELAY_S


def test_a_day_later_all_is_forgotten() -> None:
    assert _failed(50).another(_NOW + FORGET_S).count == 1
    assert _failed(50).another(_NOW + FORGET_S - 1).count == 51


def test_counts_are_read_back_and_garbage_counts_nothing() -> None:
    assert decoded(_failed(7).encoded()) == _failed(7)
    for garbage in (b"", b"[]", b"{}", b'{"count": "x", "last": 0}', b"\xff"):
        assert decoded(garbage) == Failures()
