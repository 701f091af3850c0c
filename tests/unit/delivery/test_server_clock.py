"""Time for the queue is the server's, whatever the machine's clock does."""

from datetime import UTC, datetime, timedelta

from services.delivery.server_clock import MAX_ROUND_TRIP_S, ServerClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 500.0

    def __call__(self) -> float:
        return self.seconds


def test_the_server_is_believed_and_time_goes_on() -> None:
    monotonic = Monotonic()
    clock = ServerClock(monotonic)
    monotonic.seconds += 1  # the answer took a second; it was given half a second ago
    clock.tell(NOON, asked_at=500.0)
    assert clock.now() == NOON + timedelta(seconds=0.5)
    monotonic.seconds += 60
    assert clock.now() == NOON + timedelta(seconds=60.5)


def test_a_late_answer_does_not_spoil_what_is_known() -> None:
    monotonic = Monotonic()
    clock = ServerClock(monotonic)
    clock.tell(NOON, asked_at=500.0)
    monotonic.seconds += MAX_ROUND_TRIP_S + 1
    clock.tell(NOON + timedelta(hours=1), asked_at=500.0)
    assert clock.now() == NOON + timedelta(seconds=MAX_ROUND_TRIP_S + 1)


def test_before_the_first_answer_the_machine_has_to_do() -> None:
    clock = ServerClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert not clock.known.is_set()
    clock.tell(NOON, asked_at=0.0)
    assert clock.known.is_set()
