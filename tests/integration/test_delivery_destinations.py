"""Destinations as operators handle them: suspended, resumed, and tried although they fail."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import QueueServiceStub
from services.common.jetstream import JetStream
from services.common.mail.reply import Reply
from services.common.queue.subjects import State
from services.common.store import Stored
from services.delivery import destinations, resumption
from services.delivery.resumption import Resumption
from services.delivery.worker import SUSPENDED
from tests.support.delivery import (
    FAR,
    Delivery,
    local_and_far,
    mail,
    put_to_wait,
    submit,
    wait_queued,
)
from tests.support.queue_calls import queue_calls
from tests.support.smtp_peer import SmtpPeer


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def delivery(store: JetStream, peer: SmtpPeer, tmp_path: Path) -> Delivery:
    return Delivery(store, local_and_far(peer, tmp_path))


@pytest.fixture
async def stub(delivery: Delivery, tmp_path: Path) -> AsyncIterator[QueueServiceStub]:
    async with queue_calls(delivery, tmp_path) as stub:
        yield stub


async def test_a_retry_tries_a_next_hop_that_is_left_alone(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery, peer: SmtpPeer
) -> None:
    next_hop, refused = f"smtp:127.0.0.1:{peer.port}", Reply(451, "4.4.1", "refused")
    delivery.slots.leave_alone(next_hop, 600, refused)
    subject = f"$KV.destinations.failing.{next_hop.encode().hex()}"
    record = mail(f"you@{FAR}")
    async with delivery:
        delivery.destinations.tell_failing(next_hop, 600, refused)
        async with asyncio.timeout(10):
            while await store.last("KV_destinations", subject) is None:
                pass
        await submit(store, record)
        (waiting,) = await wait_queued(store, State.DEFERRED)
        assert "is left alone for a while" in waiting.wait_reason
        await stub.RetryMessage(pb.RetryMessageRequest(message_id=record.message_id))
        await delivery.destinations.refresh()
        await peer.wait_mails(1)
        await wait_queued(store)


async def test_a_suspended_destination_is_left_alone_until_it_is_resumed(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery, peer: SmtpPeer
) -> None:
    await stub.SuspendDestination(pb.SuspendDestinationRequest(destination=FAR))
    async with delivery:
        await submit(store, mail(f"you@{FAR}"), mail("you@example.test"))
        (waiting,) = await wait_queued(store, State.DEFERRED)
        assert (waiting.attempts, waiting.wait_reason) == (0, "the destination is suspended")
        await stub.ResumeDestination(pb.ResumeDestinationRequest(destination=FAR))
        await peer.wait_mails(1)
        await wait_queued(store)


async def test_what_waits_for_another_reason_than_the_suspension_is_left_to_its_time(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "PAGE", 2)
    suspended = [mail(f"you@{FAR}") for _ in range(5)]
    for record in suspended:
        await put_to_wait(store, record, reason=SUSPENDED)
    other, elsewhere = mail(f"you@{FAR}"), mail("you@elsewhere.test")
    await put_to_wait(store, other)
    await put_to_wait(store, elsewhere, reason=SUSPENDED)
    resuming = Resumption(store, delivery.operations, delivery.destinations)
    assert await resuming.make_due(FAR) == len(suspended)
    left = await wait_queued(store, *[State.READY] * 5, *[State.DEFERRED] * 2)
    due = datetime.now(UTC) + timedelta(minutes=59)
    waiting = {each.message_id for each in left if each.due_time.ToDatetime(tzinfo=UTC) > due}
    assert waiting == {other.message_id, elsewhere.message_id}


async def test_what_a_replica_put_back_that_had_not_heard_of_the_end_goes_on_too(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    resuming = Resumption(store, delivery.operations, delivery.destinations)
    make_due = resuming.make_due
    made_due = []

    async def put_back_after_the_first(destination: str) -> int:
        made_due.append(await make_due(destination))
        if len(made_due) == 1:
            await wait_queued(store, State.READY)
            await put_to_wait(store, mail(f"you@{FAR}"), reason=SUSPENDED)
        return made_due[-1]

    monkeypatch.setattr(resumption, "NOTICED_S", 0.1)
    monkeypatch.setattr(resuming, "make_due", put_back_after_the_first)
    await put_to_wait(store, mail(f"you@{FAR}"), reason=SUSPENDED)
    resuming.begin(FAR)
    await wait_queued(store, State.READY, State.READY, seconds=30)


async def test_a_destination_that_is_suspended_again_is_left_alone(
    store: JetStream, delivery: Delivery
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), reason=SUSPENDED)
    await delivery.destinations.suspend(FAR, None)
    resuming = Resumption(store, delivery.operations, delivery.destinations)
    assert await resuming.make_due(FAR) == 0


async def test_suspensions_are_listed_page_by_page(stub: QueueServiceStub) -> None:
    names = [f"d{number}.test" for number in range(5)]
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    for name in reversed(names):
        request = pb.SuspendDestinationRequest(destination=name)
        request.until_time.FromDatetime(until)
        await stub.SuspendDestination(request)
    pages, token = [], ""
    while True:
        asked = pb.ListSuspensionsRequest(page_size=2, page_token=token)
        answer = await stub.ListSuspensions(asked)
        pages.append([each.destination for each in answer.suspensions])
        assert {each.until_time.ToDatetime(tzinfo=UTC) for each in answer.suspensions} == {until}
        token = answer.next_page_token
        if not token:
            break
    assert pages == [names[:2], names[2:4], names[4:]]


async def test_other_replicas_learn_of_suspensions_and_failing_next_hops(
    store: JetStream, delivery: Delivery, peer: SmtpPeer
) -> None:
    port = peer.port
    await peer.__aexit__(None, None, None)
    other = Delivery(store, {"domains": {"relay": {FAR: f"smtp:127.0.0.1:{port}"}}})
    await delivery.destinations.suspend("quiet.test", None)
    async with delivery:
        await submit(store, mail(f"you@{FAR}"))
        await wait_queued(store, State.DEFERRED)
    await other.destinations.refresh()
    assert other.destinations.suspension("quiet.test") is not None
    parked = await other.slots.take(f"smtp:127.0.0.1:{port}")
    assert parked is not None
    assert parked.failure is not None


async def test_what_was_read_before_does_not_undo_what_an_operator_does_meanwhile(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = delivery.destinations
    await shared.suspend("ended.test", None)
    old = await store.page("KV_destinations", "$KV.destinations.>", after_sequence=0, count=100)
    await shared.suspend("begun.test", None)
    assert await shared.resume("ended.test")

    async def lagging(*_: object, **__: object) -> list[Stored]:
        return old

    with monkeypatch.context() as patch:
        patch.setattr(store, "page", lagging)
        for _ in range(2):
            assert list(await shared.suspensions()) == ["begun.test"]
    # From here on what others do counts again.
    assert list(await shared.suspensions()) == ["begun.test"]
    assert await Delivery(store, {}).destinations.resume("begun.test")
    assert list(await shared.suspensions()) == []
    assert not await shared.resume("begun.test")


async def test_the_end_of_a_suspension_counts_wherever_its_entry_is_read(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a removed key may come on a later page than the key did."""
    monkeypatch.setattr(destinations, "PAGE", 2)
    page, shared = store.page, delivery.destinations
    for name in ("first.test", "second.test", "third.test"):
        await shared.suspend(name, None)

    async def removed_meanwhile(*arguments: Any, **named: Any) -> list[Stored]:
        found = await page(*arguments, **named)
        if not named["after_sequence"]:
            await Delivery(store, {}).destinations.resume("first.test")
        return found

    monkeypatch.setattr(store, "page", removed_meanwhile)
    assert list(await shared.suspensions()) == ["second.test", "third.test"]
