"""What an attempt means: nobody is forgotten, everybody who wants to know is told."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.delivery import Retry
from services.common.mail.reply import Reply
from services.delivery.decision import Action, decide
from services.delivery.outcome import Outcome, Result, outcome_of, result_of

ACCEPTED = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = RecipientState.RECIPIENT_STATE_PENDING
DELIVERED = RecipientState.RECIPIENT_STATE_DELIVERED
FAILED = RecipientState.RECIPIENT_STATE_FAILED

OK = Reply(250, "2.0.0", "ok")
LATER = Reply(450, "4.2.0", "later")
NEVER = Reply(550, "5.1.1", "never")


def record(count: int = 1, *, sender: str = "me@example.org", **recipient: Any) -> QueuedMessage:
    made = QueuedMessage(
        sender=sender,
        recipients=[
            Recipient(address=f"r{n}@example.test", state=PENDING, **recipient)
            for n in range(count)
        ],
    )
    made.accept_time.FromDatetime(ACCEPTED)
    return made


@pytest.mark.parametrize(
    ("code", "enhanced", "outcome"),
    [
        (250, "2.0.0", Outcome.DELIVERED),
        (252, "2.0.0", Outcome.DELIVERED),
        (354, "", Outcome.TEMPORARY),
        (421, "4.3.2", Outcome.TEMPORARY),
        (450, "4.2.0", Outcome.TEMPORARY),
        (499, "4.0.0", Outcome.TEMPORARY),
        (500, "5.5.2", Outcome.PERMANENT),
        (554, "5.7.1", Outcome.PERMANENT),
        (599, "5.0.0", Outcome.PERMANENT),
    ],
)
def test_what_a_reply_means(code: int, enhanced: str, outcome: Outcome) -> None:
    assert outcome_of(Reply(code, enhanced, "text")) is outcome


@pytest.mark.parametrize("replies", list(product([OK, LATER, NEVER], repeat=3)))
@pytest.mark.parametrize("last", [False, True])
def test_every_recipient_is_delivered_or_told_or_waits(
    replies: tuple[Reply, ...], last: bool
) -> None:
    made = record(3)
    made.attempts = 24 if last else 0
    now = ACCEPTED + timedelta(minutes=1)
    decision = decide(
        made, [result_of(reply) for reply in replies], now=now, retry=Retry(), local=True
    )
    told = {each.address for each in decision.notices.get(Action.FAILED, ())}
    for recipient, reply in zip(made.recipients, replies, strict=True):
        wants = {OK: DELIVERED, NEVER: FAILED, LATER: FAILED if last else PENDING}[reply]
        assert recipient.state == wants
        assert (recipient.address in told) == (wants == FAILED)
        assert recipient.last_status.reply.code == reply.code
    waits = any(each.state == PENDING for each in made.recipients)
    assert (decision.due is not None) == waits
    if decision.due is not None:
        assert timedelta(minutes=56) < decision.due - now < timedelta(minutes=64)


def test_only_those_who_waited_are_touched() -> None:
    made = record(2)
    made.recipients[0].state = DELIVERED
    decide(made, [result_of(NEVER)], now=ACCEPTED, retry=Retry(), local=True)
    assert [each.state for each in made.recipients] == [DELIVERED, FAILED]
    assert not made.recipients[0].HasField("last_status")


HANDED_ON = Result(Outcome.DELIVERED, OK, "peer", reports_handed_on=True)


@pytest.mark.parametrize(
    ("notify", "result", "local", "told"),
    [
        ([], result_of(NEVER), False, Action.FAILED),
        (["FAILURE"], result_of(NEVER), False, Action.FAILED),
        (["NEVER"], result_of(NEVER), False, None),
        (["SUCCESS"], result_of(NEVER), False, None),
        (["DELAY"], result_of(NEVER), False, None),
        ([], result_of(OK), True, None),
        (["FAILURE", "DELAY"], result_of(OK), True, None),
        (["SUCCESS"], result_of(OK), True, Action.DELIVERED),
        (["SUCCESS"], result_of(OK), False, Action.RELAYED),
        (["SUCCESS"], HANDED_ON, False, None),
    ],
)
def test_notify_says_what_is_told(
    notify: list[str], result: Result, local: bool, told: Action | None
) -> None:
    made = record(notify=notify)
    decision = decide(made, [result], now=ACCEPTED, retry=Retry(), local=local)
    assert list(decision.notices) == ([told] if told else [])


@pytest.mark.parametrize("reply", [OK, NEVER])
def test_the_null_sender_is_told_nothing(reply: Reply) -> None:
    made = record(sender="", notify=["SUCCESS", "FAILURE"])
    assert not decide(made, [result_of(reply)], now=ACCEPTED, retry=Retry(), local=True).notices


@pytest.mark.parametrize(("reply", "told"), [(OK, []), (NEVER, [Action.FAILED])])
def test_of_spam_only_a_failure_is_told(reply: Reply, told: list[Action]) -> None:
    made = record(notify=["SUCCESS", "FAILURE", "DELAY"])
    made.spam = True
    decision = decide(made, [result_of(reply)], now=ACCEPTED, retry=Retry(), local=True)
    assert list(decision.notices) == told


@pytest.mark.parametrize(
    ("hours", "settings", "notify", "told"),
    [
        (3, {}, [], False),
        (4, {}, [], True),
        (4, {}, ["DELAY"], True),
        (4, {}, ["FAILURE"], False),
        (4, {"delay_notice_after": "0"}, [], False),
        (4, {"delay_notice_after": "5h"}, [], False),
    ],
)
def test_a_delay_is_told_once(
    hours: int, settings: dict[str, str], notify: list[str], told: bool
) -> None:
    made = record(2, notify=notify)
    retry = Retry.model_validate(settings)
    now = ACCEPTED + timedelta(hours=hours)
    results = [result_of(LATER), result_of(LATER)]
    decision = decide(made, results, now=now, retry=retry, local=False)
    assert (Action.DELAYED in decision.notices) == told
    again = decide(made, results, now=now, retry=retry, local=False)
    assert Action.DELAYED not in again.notices
