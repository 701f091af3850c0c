"""Rates per client."""

from services.ingress import rates as module
from services.ingress.rates import Rates


def test_a_burst_of_a_minute_and_then_the_rate() -> None:
    rates = Rates()
    assert [rates.allows("a", per_minute=3, now=0.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.allows("a", per_minute=3, now=19.0)
    assert rates.allows("a", per_minute=3, now=21.0)
    assert not rates.allows("a", per_minute=3, now=22.0)
    assert [rates.allows("a", per_minute=3, now=500.0) for _ in range(4)][3] is False


def test_clients_do_not_disturb_each_other() -> None:
    rates = Rates()
    assert rates.allows("a", per_minute=1, now=0.0)
    assert not rates.allows("a", per_minute=1, now=0.0)
    assert rates.allows("b", per_minute=1, now=0.0)


def test_the_table_has_a_size(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "MAX_CLIENTS", 10)
    rates = Rates()
    for number in range(10):
        rates.allows(number, per_minute=1, now=float(number))
    assert not rates.allows(9, per_minute=1, now=61.0)
    # Those that were quiet for a minute are forgotten, the others are not.
    assert rates.allows("new", per_minute=1, now=64.0)
    assert not rates.allows(9, per_minute=1, now=65.0)
    for number in range(1000):
        rates.allows(("flood", number), per_minute=1, now=65.0)
    assert len(rates._left) <= 10
