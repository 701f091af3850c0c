"""Mail to as many recipients as the ingress takes, of each of whom the next hop says a lot: what is
stored about it must not be longer than the server takes.
"""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.queue.v1.event_pb2 import AttemptEvent, NotificationEvent
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.jetstream import JetStream
from services.common.queue.subjects import DEAD_STREAM, State
from services.delivery.dead import REASON_HEADER
from tests.support.delivery import (
    ACCOUNT,
    CONTENT,
    DESTINATION,
    RECIPIENT,
    Delivery,
    contents,
    events,
    mail,
    submit,
    wait_queued,
)
from tests.support.eventually import eventually
from tests.support.smtp_peer import SmtpPeer

LONG = "w" * 496
MANY = [f"{number:a>64}@{DESTINATION}" for number in range(1000)]
PATIENCE_S = 60.0
"""A thousand recipients take some seconds."""


def config(peer: SmtpPeer, home: SmtpPeer) -> dict[str, Any]:
    """DESTINATION goes to one peer, what the sender is told to another."""
    return {
        "smtp": {"hostname": "mail.example.test"},
        "domains": {
            "relay": {
                DESTINATION: f"smtp:127.0.0.1:{peer.port}",
                ACCOUNT.partition("@")[2]: f"smtp:127.0.0.1:{home.port}",
            }
        },
    }


def to_many(**fields: Any) -> QueuedMessage:
    """As much about recipients as the ingress takes for one mail."""
    record = mail(*MANY, **fields)
    for number, recipient in enumerate(record.recipients):
        recipient.orcpt = f"rfc822;{number:o>320}"
        recipient.notify.extend(["SUCCESS", "FAILURE", "DELAY"])
    return record


async def both_events(store: JetStream, message_id: str) -> tuple[NotificationEvent, AttemptEvent]:
    """What is told of a mail that was tried once and given up."""

    async def are_there() -> bool:
        return len(await events(store, message_id)) == 2

    await eventually(are_there)
    first, second = await events(store, message_id)
    return first.notification, second.attempt


@pytest.mark.parametrize("header_octets", [0, 200_000])
async def test_a_thousand_long_refusals_are_reported_and_the_mail_is_finished(
    store: JetStream, header_octets: int
) -> None:
    filler = b"X-Filler: some of a long header\r\n" * (header_octets // 33)
    record = to_many(content=filler + CONTENT)
    async with (
        SmtpPeer(rcpt=f"550 5.1.1 {LONG}") as peer,
        SmtpPeer() as home,
        Delivery(store, config(peer, home)),
    ):
        await submit(store, record)
        (report,) = await home.wait_mails(1, seconds=PATIENCE_S)
        await wait_queued(store, seconds=PATIENCE_S)
    assert (report.mail_from, report.rcpt_to) == ("", [ACCOUNT])
    for address in MANY:
        assert f" {address}\r\nAction: failed\r\nStatus: 5.1.1\r\n".encode() in report.content
    assert await contents(store) == []
    told, tried = await both_events(store, record.message_id)
    assert list(told.recipients) == MANY
    assert [each.address for each in tried.recipients] == MANY


async def test_a_thousand_long_deferrals_leave_the_mail_waiting(store: JetStream) -> None:
    async with (
        SmtpPeer(rcpt=f"450 4.2.1 {LONG}") as peer,
        SmtpPeer() as home,
        Delivery(store, config(peer, home)),
    ):
        await submit(store, to_many())
        (waiting,) = await wait_queued(store, State.DEFERRED, seconds=PATIENCE_S)
    assert [each.address for each in waiting.recipients] == MANY
    for each in waiting.recipients:
        assert each.last_status.reply.enhanced_code == "4.2.1"
        assert each.last_status.reply.text.startswith("www")


async def test_a_record_whose_next_state_can_never_be_stored_is_set_aside(
    store: JetStream,
) -> None:
    record = mail(*(f"{n}@{DESTINATION}" for n in range(6)), envid="x" * 1_046_000)
    async with (
        SmtpPeer(extensions=(), mail=f"451 4.3.0 {LONG}") as peer,
        SmtpPeer() as home,
        Delivery(store, config(peer, home)),
    ):
        await submit(store, record)
        await wait_queued(store, seconds=PATIENCE_S)
        after = mail(RECIPIENT)
        await submit(store, after)
        (waiting,) = await wait_queued(store, State.DEFERRED, seconds=PATIENCE_S)
    assert waiting.message_id == after.message_id
    (dead,) = await store.page(DEAD_STREAM, "dead.>", after_sequence=0, count=10)
    assert QueuedMessage.FromString(dead.data).message_id == record.message_id
    assert "cannot be stored" in dead.headers[REASON_HEADER]
