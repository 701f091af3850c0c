"""What a record may take once every recipient has been tried, at the limits of the ingress."""

from datetime import UTC, datetime, timedelta

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient, RecipientState
from services.common.config.delivery import Retry
from services.common.mail.reply import MAX_TEXT_OCTETS, Reply
from services.common.queue.record import deferred
from services.delivery.decision import decide, give_up
from services.delivery.outcome import result_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NATS_OCTETS = 1024 * 1024
INGRESS_OCTETS = 512 * 1024
"""What the ingress lets all recipients take, each with its addresses and 48 octets."""

NEXT_HOP = f"{'x' * 63}.far.test[2001:db8:1111:2222:3333:4444:5555:6666]:25"
LONG = Reply(450, "4.123.123", "w" * MAX_TEXT_OCTETS)


def recipients(count: int, *, orcpt: bool) -> list[Recipient]:
    """So many, with addresses and ORCPT as long as the ingress takes them, or shorter."""
    most = INGRESS_OCTETS // count - 48
    local = min(64, max(6, (most - 20) // 2))
    made = []
    for number in range(count):
        address = f"{number:a>{local}}@d.test"
        rest = most - 2 * len(address) - len("rfc822;")
        made.append(
            Recipient(
                address=address,
                original_address=address,
                orcpt=f"rfc822;{'o' * min(rest, 490)}" if orcpt and rest > 0 else "",
                notify=["SUCCESS", "FAILURE", "DELAY"],
                state=RecipientState.RECIPIENT_STATE_PENDING,
            )
        )
    return made


def record(count: int, *, orcpt: bool = True) -> QueuedMessage:
    made = QueuedMessage(
        schema_version=1,
        message_id="abc-1",
        destination="d.test",
        sender="me@example.org",
        recipients=recipients(count, orcpt=orcpt),
    )
    made.accept_time.FromDatetime(NOW - timedelta(minutes=1))
    made.content_reference.content_id = "abc-1"
    return made


def texts(tried: QueuedMessage) -> set[str]:
    return {each.last_status.reply.text for each in tried.recipients}


@pytest.mark.parametrize("count", [1000, 3000, 7000])
@pytest.mark.parametrize("reply", [LONG, Reply(450, "4.2.0", "é" * 248)], ids=["ascii", "utf8"])
def test_a_record_of_many_long_replies_can_be_stored(count: int, reply: Reply) -> None:
    tried = record(count)
    results = [result_of(reply, NEXT_HOP)] * count
    decision = decide(tried, results, now=NOW, retry=Retry(), local=False)
    assert decision.due is not None
    message = deferred(tried, decision.due)
    assert len(message.data) < NATS_OCTETS - 4096
    assert len(tried.recipients) == count
    for each in tried.recipients:
        said = each.last_status.reply
        # It is a reply still, of one printable line.
        assert Reply(said.code, said.enhanced_code, said.text).text.endswith("...")
        assert said.enhanced_code == reply.enhanced


def test_all_texts_are_cut_at_one_length_and_the_next_hops_stay_if_they_can() -> None:
    tried = record(1000)
    decide(tried, [result_of(LONG, "mx.d.test")] * 1000, now=NOW, retry=Retry(), local=False)
    (text,) = texts(tried)
    assert 100 < len(text) < MAX_TEXT_OCTETS
    assert {each.last_status.next_hop for each in tried.recipients} == {"mx.d.test"}


def test_replies_that_fit_are_left_alone() -> None:
    tried = record(1000, orcpt=False)
    decide(tried, [result_of(LONG, "mx.d.test")] * 1000, now=NOW, retry=Retry(), local=False)
    assert texts(tried) == {LONG.text}


def test_a_short_reply_among_long_ones_is_left_alone() -> None:
    tried = record(1000)
    results = [result_of(LONG, "mx.d.test")] * 999
    short = Reply(550, "5.1.1", "no")
    decide(tried, [*results, result_of(short)], now=NOW, retry=Retry(), local=False)
    assert tried.recipients[-1].last_status.reply.text == "no"


def test_what_an_operator_gives_up_after_long_replies_fits_too() -> None:
    tried = record(1000)
    for each in tried.recipients[1:]:
        each.state = RecipientState.RECIPIENT_STATE_FAILED
        each.last_status.next_hop = NEXT_HOP
        each.last_status.reply.text = LONG.text
    give_up(tried, Reply(554, "5.0.0", "cancelled"), NOW)
    assert sum(each.ByteSize() for each in tried.recipients) < NATS_OCTETS - 4096
    assert tried.recipients[0].last_status.reply.text == "cancelled"
