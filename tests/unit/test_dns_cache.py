"""How long answers are kept, and how many."""

import pytest

from services.common.dns import Answer, DnsOptions, RecordType, Status
from services.common.dns.cache import MEAN_ENTRY_OCTETS, AnswerCache
from tests.support.clock import FakeClock


def answer(name: str, *records: str, status: Status = Status.OK, ttl: int = 0) -> Answer:
    return Answer(name, RecordType.PTR, status, records, ttl=ttl)


def cache(max_entries: int = 10) -> tuple[AnswerCache, FakeClock]:
    clock = FakeClock()
    return AnswerCache(max_entries=max_entries, clock=clock), clock


def known(kept: AnswerCache, *names: str) -> list[str]:
    return [name for name in names if kept.get(name, RecordType.PTR)]


def test_an_answer_is_given_until_it_expires() -> None:
    kept, clock = cache()
    kept.put(answer("a.test"), seconds=30)
    clock.advance(29.9)
    assert kept.get("a.test", RecordType.PTR) == answer("a.test")
    clock.advance(0.1)
    assert kept.get("a.test", RecordType.PTR) is None
    assert len(kept) == 0


def test_types_of_one_name_are_kept_apart() -> None:
    kept, _ = cache()
    kept.put(answer("a.test"), seconds=30)
    assert kept.get("a.test", RecordType.NS) is None


def test_a_new_answer_replaces_the_old_one_and_its_expiry() -> None:
    kept, clock = cache()
    kept.put(answer("a.test", "old.test"), seconds=30)
    clock.advance(20)
    kept.put(answer("a.test", "new.test"), seconds=30)
    clock.advance(20)
    assert kept.get("a.test", RecordType.PTR) == answer("a.test", "new.test")
    assert len(kept) == 1


def test_the_longest_unused_answer_makes_room() -> None:
    kept, _ = cache(max_entries=2)
    kept.put(answer("a.test"), seconds=30)
    kept.put(answer("b.test"), seconds=30)
    assert known(kept, "a.test") == ["a.test"]
    kept.put(answer("c.test"), seconds=30)
    assert known(kept, "a.test", "b.test", "c.test") == ["a.test", "c.test"]


def test_large_answers_are_fewer() -> None:
    kept, _ = cache(max_entries=10)
    large = "x" * (3 * MEAN_ENTRY_OCTETS)
    for number in range(10):
        kept.put(answer(f"{number}.test", large), seconds=30)
    assert 1 <= len(kept) <= 3
    assert known(kept, "9.test") == ["9.test"]


def test_an_answer_larger_than_the_whole_cache_empties_nothing_for_good() -> None:
    kept, _ = cache(max_entries=1)
    kept.put(answer("a.test", "x" * 10 * MEAN_ENTRY_OCTETS), seconds=30)
    assert len(kept) == 0
    kept.put(answer("b.test"), seconds=30)
    assert known(kept, "b.test") == ["b.test"]


def test_nothing_is_kept_for_no_time_or_in_no_place() -> None:
    kept, _ = cache()
    kept.put(answer("a.test"), seconds=30)
    kept.put(answer("a.test"), seconds=0)
    assert len(kept) == 0
    none, _ = cache(max_entries=0)
    none.put(answer("a.test"), seconds=30)
    assert len(none) == 0


@pytest.mark.parametrize(
    ("status", "ttl", "kept_seconds"),
    [
        (Status.OK, 0, 5),
        (Status.OK, 300, 300),
        (Status.OK, 86_400, 3_600),
        (Status.NO_DATA, 0, 5),
        (Status.NO_DATA, 86_400, 900),
        (Status.NXDOMAIN, 60, 60),
        (Status.NXDOMAIN, 86_400, 900),
        (Status.TEMPORARY, 0, 3),
        (Status.TEMPORARY, 86_400, 3),
    ],
)
def test_times_are_kept_within_bounds(status: Status, ttl: int, kept_seconds: float) -> None:
    assert DnsOptions().keep_seconds(answer("a.test", status=status, ttl=ttl)) == kept_seconds


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"attempt_timeout": 0}, "attempt_timeout"),
        ({"attempt_timeout": 6, "deadline": 5}, "deadline"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent": 10, "max_pending": 9}, "max_pending"),
        ({"cache_entries": -1}, "cache_entries"),
        ({"min_ttl": -1}, "min_ttl"),
        ({"min_ttl": 10, "max_ttl": 9}, "max_ttl"),
        ({"min_ttl": 10, "max_negative_ttl": 9}, "max_negative_ttl"),
        ({"temporary_ttl": 11}, "temporary_ttl"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DnsOptions(**setting)  # type: ignore[arg-type]
