"""What becomes of mail that finds its next hop left alone each time that it is due."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.delivery import Retry
from services.common.mail.reply import Reply
from services.delivery.decision import Action, decide, failure_counts
from services.delivery.outcome import result_of

ACCEPTED = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PARKED = timedelta(minutes=5)
"""For how long mail is put back by default, at most."""
FAILURE = Reply(451, "4.4.1", "refused")


def record(*, notify: list[str] | None = None) -> QueuedMessage:
    pending = RecipientState.RECIPIENT_STATE_PENDING
    made = QueuedMessage(
        sender="me@example.org",
        recipients=[Recipient(address="r@example.test", state=pending, notify=notify or [])],
    )
    made.accept_time.FromDatetime(ACCEPTED)
    return made


def life(
    made: QueuedMessage, retry: Retry, *, begin: timedelta = timedelta(0)
) -> Iterator[tuple[Action, timedelta]]:
    """What its sender is told, and how old the mail is then."""
    age = begin
    while True:
        now = ACCEPTED + age
        if failure_counts(made, now=now, retry=retry):
            decision = decide(made, [result_of(FAILURE)], now=now, retry=retry, local=False)
            yield from ((action, age) for action in decision.notices)
            if decision.due is None:
                return
        age += PARKED
        assert age < 100 * HOUR


@pytest.mark.parametrize(
    ("settings", "delayed", "failed"),
    [
        ({}, 4 * HOUR, 24 * HOUR),
        ({"max_age": "6h"}, 4 * HOUR, 6 * HOUR),
        ({"interval": "12h", "max_age": "6h"}, 4 * HOUR, 6 * HOUR),
        ({"max_retries": 9, "delay_notice_after": "150m"}, 2.5 * HOUR, 9 * HOUR),
    ],
)
def test_the_sender_is_told_in_time(
    settings: dict[str, object], delayed: timedelta, failed: timedelta
) -> None:
    told = list(life(record(), Retry.model_validate(settings)))
    assert [action for action, _ in told] == [Action.DELAYED, Action.FAILED]
    assert delayed <= told[0][1] <= delayed + PARKED
    assert failed <= told[1][1] <= failed + 1.25 * HOUR
    if "max_age" in settings:
        assert told[1][1] <= failed + PARKED


@pytest.mark.parametrize("settings", [{}, {"initial": "5m"}, {"initial": "5m", "max_retries": 5}])
def test_it_is_given_up_when_mail_is_that_was_tried_each_time(settings: dict[str, object]) -> None:
    retry = Retry.model_validate(settings)
    tried, now = record(), ACCEPTED
    while True:
        due = decide(tried, [result_of(FAILURE)], now=now, retry=retry, local=False).due
        if due is None:
            break
        now = due
    *_, (action, age) = life(record(), retry)
    assert action is Action.FAILED
    # The first failure counts one wait later, each one up to the time parked.
    assert 0.9 * (now - ACCEPTED) <= age <= 1.1 * (now - ACCEPTED) + HOUR


def test_fresh_mail_counts_no_failure() -> None:
    assert not failure_counts(record(), now=ACCEPTED + 0.9 * HOUR, retry=Retry())


@pytest.mark.parametrize("notify", [["NEVER"], ["FAILURE"]])
def test_who_wants_no_word_of_delays_counts_no_more_failures(notify: list[str]) -> None:
    made, retry = record(notify=notify), Retry()
    ages = [5 * HOUR, 5.1 * HOUR, 5.2 * HOUR]
    for age in ages:
        if failure_counts(made, now=ACCEPTED + age, retry=retry):
            decide(made, [result_of(FAILURE)], now=ACCEPTED + age, retry=retry, local=False)
    assert made.attempts == 1


def test_what_was_suspended_for_two_days_has_its_retries_after_that() -> None:
    begin = 48 * HOUR
    told = list(life(record(), Retry(), begin=begin))
    assert [action for action, _ in told] == [Action.DELAYED, Action.FAILED]
    assert told[1][1] >= begin + 22 * HOUR
