"""What an attempt means for its record: who is done, who is given up, when the next attempt is due.

A function of plain values, the heart of "nothing lost": every recipient that is neither delivered
nor given up leaves the record waiting for a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from gatepost.policy.v1.verdict_pb2 import Reply as ReplyMessage
from gatepost.queue.v1.record_pb2 import (
    DeliveryStatus,
    QueuedMessage,
    Recipient,
    RecipientState,
)
from services.common.config.delivery import Retry
from services.common.mail.reply import Reply
from services.common.queue.record import accept_time, pending
from services.delivery.outcome import Outcome, Result, result_of
from services.delivery.retry import delay, is_last, is_too_old, next_time
from services.delivery.shortening import shorten_replies


class Action(StrEnum):
    """What the sender is told of a recipient: the values of RFC 3464 §2.3.3 that we use."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a record after an attempt."""

    due: datetime | None
    """When the next attempt is due; None: there is none, the record is finished."""
    notices: Mapping[Action, Sequence[Recipient]]
    """What the sender is to be told, as far as NOTIFY asks for it."""


def decide(
    record: QueuedMessage,
    results: Sequence[Result],
    *,
    now: datetime,
    retry: Retry,
    local: bool,
) -> Decision:
    """Note the results, one for each pending recipient in order, in the record, and decide.

    The record is changed: states, last status, number of attempts, reason of waiting.
    """
    tried = pending(record)
    record.attempts += 1
    gives_up = is_last(record.attempts, now - accept_time(record), retry)
    notices: dict[Action, list[Recipient]] = {}
    waits = False
    for recipient, result in zip(tried, results, strict=True):
        recipient.last_status.CopyFrom(_status(result, now))
        action = None
        if result.outcome is Outcome.DELIVERED:
            recipient.state = RecipientState.RECIPIENT_STATE_DELIVERED
            action = _success(result, local=local)
        elif result.outcome is Outcome.PERMANENT or gives_up:
            recipient.state = RecipientState.RECIPIENT_STATE_FAILED
            action = Action.FAILED
        else:
            waits = True
            said_by = f"{result.next_hop}: " if result.next_hop else ""
            record.wait_reason = f"{said_by}{result.reply}"
        if action is not None and _wanted(record, recipient, action):
            notices.setdefault(action, []).append(recipient)
    shorten_replies(record)
    if not waits:
        return Decision(None, notices)
    if delayed := _delayed(record, now, retry):
        notices[Action.DELAYED] = delayed
        record.delay_notice_time.FromDatetime(now)
    return Decision(next_time(record.attempts, now, retry), notices)


def failure_counts(record: QueuedMessage, *, now: datetime, retry: Retry) -> bool:
    """Whether the failure of a next hop counts as an attempt for a record without a turn there.

    As often as it would be tried, so that it ends when others do; not by its age alone, since it
    may have been suspended or held. At once if it is too old, or if its sender is to be told.
    """
    if is_too_old(now - accept_time(record), retry) or _delayed(record, now, retry):
        return True
    statuses = (each.last_status for each in pending(record) if each.HasField("last_status"))
    times = [status.attempt_time.ToDatetime(tzinfo=UTC) for status in statuses]
    last = max(times, default=accept_time(record))
    return now - last >= delay(max(record.attempts, 1), retry, stray=-1)


def give_up(record: QueuedMessage, reply: Reply, now: datetime) -> Decision:
    """End a record over a reply of our own, without an attempt. It is changed as by `decide`."""
    failed = pending(record)
    for recipient in failed:
        recipient.last_status.CopyFrom(_status(result_of(reply), now))
        recipient.state = RecipientState.RECIPIENT_STATE_FAILED
    shorten_replies(record)
    told = [each for each in failed if _wanted(record, each, Action.FAILED)]
    return Decision(None, {Action.FAILED: told} if told else {})


def _success(result: Result, *, local: bool) -> Action | None:
    if local:
        return Action.DELIVERED
    # RFC 3461 §5.2.2: whoever hands a mail to a host without DSN reports in its place.
    return None if result.reports_handed_on else Action.RELAYED


def _delayed(record: QueuedMessage, now: datetime, retry: Retry) -> list[Recipient]:
    """Whom to tell the sender of because they have waited for long; once in the life of a mail."""
    after = retry.delay_notice_after
    if not after or record.HasField("delay_notice_time") or now - accept_time(record) < after:
        return []
    return [each for each in pending(record) if _wanted(record, each, Action.DELAYED)]


_NOTIFY = {
    Action.FAILED: "FAILURE",
    Action.DELAYED: "DELAY",
    Action.DELIVERED: "SUCCESS",
    Action.RELAYED: "SUCCESS",
}


def _wanted(record: QueuedMessage, recipient: Recipient, action: Action) -> bool:
    """RFC 3461 §4.1: without NOTIFY failures and delays are told. Nothing to the null sender.

    Deviation: of spam only a failure is told. Its sender is most likely somebody who never sent it.
    """
    if not record.sender or (record.spam and action is not Action.FAILED):
        return False
    asked = recipient.notify
    return _NOTIFY[action] in (asked or ("FAILURE", "DELAY"))


def _status(result: Result, now: datetime) -> DeliveryStatus:
    status = DeliveryStatus(next_hop=result.next_hop, reply=reply_message(result.reply))
    status.attempt_time.FromDatetime(now)
    return status


def reply_message(reply: Reply) -> ReplyMessage:
    """The reply as records and events hold it."""
    return ReplyMessage(code=reply.code, enhanced_code=reply.enhanced, text=reply.text)
