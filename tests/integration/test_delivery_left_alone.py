"""Mail for a next hop that is left alone since it fails: it ends, and its sender is told, in time.

The sender has a mailbox here, in which stands what he is told.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.mail.reply import Reply
from services.common.queue.record import deferred
from services.common.queue.subjects import State
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from services.delivery.precedence import BUSY
from services.delivery.route import route_of
from tests.support.delivery import FAR, Delivery, contents, local_and_far, mail, until, wait_queued
from tests.support.smtp_peer import SmtpPeer

SENDER = "me@example.test"
HOUR = timedelta(hours=1)
FAILURE = Reply(451, "4.4.1", "connection refused")


async def come_due(store: JetStream, record: QueuedMessage) -> None:
    """Have a record handed out as one that was put back before."""
    record.wait_reason = ""
    await move_to_stream(Batcher(store), record)
    await store.publish(deferred(record, datetime.now(UTC)))


async def put_back(store: JetStream) -> QueuedMessage:
    """The only record in the queue, once it was in hand."""
    async with asyncio.timeout(30):
        while True:
            (waiting,) = await wait_queued(store, State.DEFERRED, seconds=30)
            if waiting.wait_reason:
                return waiting
            await asyncio.sleep(0.02)


def waiting_mail(age: timedelta) -> QueuedMessage:
    record = mail(f"you@{FAR}", sender=SENDER, authenticated_account=SENDER)
    record.accept_time.FromDatetime(datetime.now(UTC) - age)
    return record


def leave_alone(delivery: Delivery, failure: Reply) -> str:
    route = route_of(delivery.source.current, FAR, "example.test")
    delivery.slots.leave_alone(route.key, 300, failure)
    return route.key


def told(folder: Path) -> list[bytes]:
    new = folder / "mail" / "example.test" / "me" / "new"
    return [path.read_bytes() for path in new.iterdir()] if new.exists() else []


def configured(peer: SmtpPeer, folder: Path, **retry: str) -> dict[str, Any]:
    return local_and_far(peer, folder) | {"delivery": {"retry": retry}}


async def test_mail_older_than_the_limit_is_given_up_with_what_the_next_hop_fails_with(
    store: JetStream, tmp_path: Path
) -> None:
    async with SmtpPeer() as peer:
        async with Delivery(store, configured(peer, tmp_path, max_age="6h")) as delivery:
            leave_alone(delivery, FAILURE)
            await come_due(store, waiting_mail(6.1 * HOUR))
            await until(lambda: told(tmp_path), seconds=30)
            await wait_queued(store, seconds=30)
        assert peer.commands == []
    (report,) = told(tmp_path)
    assert b"Action: failed\r\nStatus: 4.4.1\r\n" in report
    assert str(FAILURE).encode() in report
    assert await contents(store) == []


@pytest.mark.parametrize("age", [4.1 * HOUR, 48 * HOUR], ids=["waited", "was suspended"])
@pytest.mark.parametrize("code", [451, 554], ids=["not now", "refuses at the greeting"])
async def test_a_delay_is_told_once_and_the_mail_waits_on(
    store: JetStream, tmp_path: Path, age: timedelta, code: int
) -> None:
    """What the next hop said to another mail is final for none that was not tried."""
    async with SmtpPeer() as peer:
        async with Delivery(store, configured(peer, tmp_path)) as delivery:
            leave_alone(delivery, Reply(code, f"{code // 100}.3.2", "go away"))
            await come_due(store, waiting_mail(age))
            await until(lambda: told(tmp_path), seconds=30)
            waiting = await put_back(store)
            due = waiting.due_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
            assert due < HOUR / 2  # as soon as it may have its turn
            last = waiting.recipients[0].last_status.attempt_time
            last.FromDatetime(datetime.now(UTC) - 2 * HOUR)
            await come_due(store, waiting)
            assert (await put_back(store)).attempts == 2
        assert peer.commands == []
    (report,) = told(tmp_path)
    assert b"Action: delayed\r\n" in report
    until_time = re.search(rb"Will-Retry-Until: (.*)\r\n", report)
    assert until_time is not None
    assert parsedate_to_datetime(until_time[1].decode()) > datetime.now(UTC) + 12 * HOUR


async def test_mail_that_waits_for_its_turn_alone_is_not_returned(
    store: JetStream, tmp_path: Path
) -> None:
    """An operator wants the next hop tried: it has failed before, but may take mail now."""
    async with SmtpPeer() as peer:
        config = configured(peer, tmp_path, max_age="6h")
        config["delivery"]["concurrency"] = {"initial": 1, "limit": 1}
        async with Delivery(store, config) as delivery:
            key = leave_alone(delivery, FAILURE)
            delivery.slots.try_again(key)
            assert await delivery.slots.take(key) is None
            await come_due(store, waiting_mail(7 * HOUR))
            waiting = await put_back(store)
        assert waiting.wait_reason == BUSY
    assert told(tmp_path) == []
