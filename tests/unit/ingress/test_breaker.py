"""The breaker: when calls are made, when they are not, when it is tried again."""

from services.ingress.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, MAX_PAUSE_S, Breaker


def _opened(now: float) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.allows(now)
        breaker.failed(now)
    return breaker


def test_a_few_failures_open_it() -> None:
    assert not _opened(0.0).allows(0.0)


def test_successes_between_failures_keep_it_closed() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES_TO_OPEN):
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.allows(0.0)


def test_one_call_after_the_pause_is_the_probe() -> None:
    breaker = _opened(0.0)
    assert not breaker.allows(FIRST_PAUSE_S - 0.01)
    assert breaker.allows(FIRST_PAUSE_S)
    assert not breaker.allows(FIRST_PAUSE_S)


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = _opened(0.0)
    assert breaker.allows(FIRST_PAUSE_S)
    breaker.succeeded()
    assert all(breaker.allows(FIRST_PAUSE_S) for _ in range(5))


def test_pauses_grow_and_have_an_end() -> None:
    breaker = _opened(0.0)
    now, pauses = 0.0, []
    for _ in range(8):
        before = now
        while not breaker.allows(now):
            now += 0.125
        pauses.append(now - before)
        breaker.failed(now)
    assert pauses == sorted(pauses)
    assert pauses[1] == 2 * pauses[0] == 2 * FIRST_PAUSE_S
    assert pauses[-1] == MAX_PAUSE_S


def test_a_probe_that_never_comes_back_does_not_close_the_way_for_ever() -> None:
    breaker = _opened(0.0)
    assert breaker.allows(FIRST_PAUSE_S)
    assert breaker.allows(3 * FIRST_PAUSE_S)
