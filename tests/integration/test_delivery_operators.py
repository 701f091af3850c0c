"""What operators see and do, over gRPC as they do it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gatepost.queue.v1 import queue_pb2 as pb
from gatepost.queue.v1.queue_pb2_grpc import (
    QueueServiceStub,
)
from services.common.jetstream import JetStream, Outgoing
from services.common.queue.subjects import (
    DEAD_STREAM,
    DELIVERY_CONSUMER,
    QUEUE_STREAM,
    RecordKey,
    State,
)
from services.common.store import Stored
from services.delivery.dead import SUBJECT_HEADER
from services.delivery.ledger import Ledger
from tests.support.delivery import (
    FAR,
    Delivery,
    contents,
    events,
    local_and_far,
    mail,
    put_to_wait,
    queued,
    submit,
    wait_queued,
)
from tests.support.queue_calls import queue_calls
from tests.support.smtp_peer import SmtpPeer

LATER = timedelta(hours=1)


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


async def states(store: JetStream) -> list[State]:
    return sorted(state for state, _ in await queued(store))


def failing(code: grpc.StatusCode) -> Any:
    """Expect this status."""
    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code)


# --- looking ------------------------------------------------------------------------------------


async def test_the_queue_is_listed_page_by_page(store: JetStream, stub: QueueServiceStub) -> None:
    waiting = [mail(f"you@{FAR}", sender="") for _ in range(5)]
    await put_to_wait(store, *waiting[:4])
    await put_to_wait(store, waiting[4], state=State.HELD)
    await submit(store, mail("you@example.test"))
    pages = []
    token = ""
    while True:
        answer = await stub.ListMessages(pb.ListMessagesRequest(page_size=2, page_token=token))
        pages.append([entry.message_id for entry in answer.entries])
        token = answer.next_page_token
        if not token:
            break
    assert list(map(len, pages)) == [2, 2, 2]
    assert [each for page in pages for each in page][:5] == [each.message_id for each in waiting]
    only = await stub.ListMessages(pb.ListMessagesRequest(state=pb.QUEUE_STATE_HELD))
    (entry,) = only.entries
    assert entry.message_id == waiting[4].message_id
    there = await stub.ListMessages(pb.ListMessagesRequest(destination="EXAMPLE.test"))
    assert [entry.state for entry in there.entries] == [pb.QUEUE_STATE_READY]


async def test_an_entry_tells_why_it_waits_and_nothing_of_the_body(
    store: JetStream, stub: QueueServiceStub
) -> None:
    record = mail(f"you@{FAR}", content=b"Subject: x\r\n\r\nsecret\r\n")
    await put_to_wait(store, record)
    answer = await stub.GetMessage(pb.GetMessageRequest(message_id=record.message_id))
    (entry,) = answer.entries
    assert (entry.state, entry.wait_reason) == (pb.QUEUE_STATE_DEFERRED, "451 4.3.0 not now")
    assert entry.size == record.size
    assert entry.due_time.ToDatetime(tzinfo=UTC) > datetime.now(UTC) + timedelta(minutes=59)
    assert b"secret" not in answer.SerializeToString()


async def test_a_mail_that_is_gone_is_known_by_its_events(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery
) -> None:
    record = mail("you@example.test")
    async with delivery:
        await submit(store, record)
        await wait_queued(store)
    answer = await stub.GetMessage(pb.GetMessageRequest(message_id=record.message_id))
    assert not answer.entries
    (happened,) = answer.events
    assert happened.attempt.recipients[0].reply.code == 250


@pytest.mark.parametrize(
    ("method", "request_message", "code"),
    [
        ("GetMessage", pb.GetMessageRequest(message_id="nobody-1"), grpc.StatusCode.NOT_FOUND),
        ("GetMessage", pb.GetMessageRequest(message_id="*"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            "ListMessages",
            pb.ListMessagesRequest(page_size=9999),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "ListMessages",
            pb.ListMessagesRequest(page_token="x"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "ListMessages",
            pb.ListMessagesRequest(destination="a..b"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "ListMessages",
            pb.ListMessagesRequest(destination="[x]"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ("RetryMessage", pb.RetryMessageRequest(message_id="nobody-1"), grpc.StatusCode.NOT_FOUND),
        (
            "ResumeDestination",
            pb.ResumeDestinationRequest(destination=FAR),
            grpc.StatusCode.NOT_FOUND,
        ),
        (
            "SuspendDestination",
            pb.SuspendDestinationRequest(),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "RequeueDeadRecord",
            pb.RequeueDeadRecordRequest(sequence=999_999),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
    ids=repr,
)
async def test_wrong_requests(
    stub: QueueServiceStub, method: str, request_message: Any, code: grpc.StatusCode
) -> None:
    with failing(code):
        await getattr(stub, method)(request_message)


# --- changing -----------------------------------------------------------------------------------


async def test_a_waiting_mail_is_tried_at_once(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery, peer: SmtpPeer
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record)
    async with delivery:
        answer = await stub.RetryMessage(pb.RetryMessageRequest(message_id=record.message_id))
        await peer.wait_mails(1, seconds=30)  # by itself it would wait for an hour
        await wait_queued(store)
    kinds = [each.WhichOneof("kind") for each in await events(store, record.message_id)]
    assert sorted(kinds) == ["attempt", "operator"]
    (entry,) = answer.entries
    assert entry.message_id == record.message_id
    assert entry.due_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)


async def test_a_release_answers_with_what_it_released_and_nothing_else(
    store: JetStream, stub: QueueServiceStub
) -> None:
    held, waiting = mail(f"you@{FAR}"), mail(f"you@{FAR}")
    await put_to_wait(store, held, state=State.HELD)
    await put_to_wait(store, waiting)
    answer = await stub.ReleaseMessage(pb.ReleaseMessageRequest(message_id=held.message_id))
    assert [entry.state for entry in answer.entries] == [pb.QUEUE_STATE_READY]
    answer = await stub.ReleaseMessage(pb.ReleaseMessageRequest(message_id=waiting.message_id))
    assert not answer.entries
    assert not await events(store, waiting.message_id)


async def test_a_held_mail_is_tried_only_after_its_release(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery, peer: SmtpPeer
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record)
    answer = await stub.HoldMessage(pb.HoldMessageRequest(message_id=record.message_id))
    assert [entry.state for entry in answer.entries] == [pb.QUEUE_STATE_HELD]
    assert await states(store) == [State.HELD]
    with failing(grpc.StatusCode.FAILED_PRECONDITION):
        await stub.RetryMessage(pb.RetryMessageRequest(message_id=record.message_id))
    async with delivery:
        await asyncio.sleep(0.5)
        assert not peer.mails
        await stub.ReleaseMessage(pb.ReleaseMessageRequest(message_id=record.message_id))
        await peer.wait_mails(1)
        await wait_queued(store)
    assert await contents(store) == []


async def test_a_release_that_was_cut_off_delivers_once(
    store: JetStream, delivery: Delivery, peer: SmtpPeer
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record, state=State.HELD)
    record.due_time.FromDatetime(datetime.now(UTC))
    record.wait_reason = ""
    await submit(store, record)  # and the held one is still there
    async with delivery:
        await wait_queued(store)
    assert len(peer.mails) == 1


async def test_a_mail_that_is_held_while_what_a_release_left_is_removed_stays(
    store: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = mail(f"you@{FAR}")
    key = RecordKey(record.destination, record.message_id)
    await put_to_wait(store, record, state=State.HELD, reason="")
    await submit(store, record)
    consumer, last_of = store.consumer(QUEUE_STREAM, DELIVERY_CONSUMER), store.last_of
    (hand,) = [each async for each in consumer.pull(1, wait_s=30)]
    await consumer.close()

    async def held_meanwhile(stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        found = await last_of(stream, subjects)
        await put_to_wait(store, record, state=State.HELD, reason="")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "last_of", held_meanwhile)
        assert not await Ledger(store).is_superseded(hand, key, record)
    assert await states(store) == [State.HELD, State.READY]
    assert await Ledger(store).is_superseded(hand, key, record)


@pytest.mark.parametrize("state", [State.DEFERRED, State.HELD])
@pytest.mark.parametrize("notify", [False, True])
async def test_a_cancelled_mail_is_gone_and_its_sender_told_if_wanted(
    store: JetStream,
    stub: QueueServiceStub,
    delivery: Delivery,
    peer: SmtpPeer,
    tmp_path: Path,
    state: State,
    notify: bool,
) -> None:
    record = mail(f"you@{FAR}", sender="me@example.test")
    await put_to_wait(store, record, state=state)
    answer = await stub.CancelMessage(
        pb.CancelMessageRequest(message_id=record.message_id, notify_sender=notify)
    )
    assert [entry.message_id for entry in answer.entries] == [record.message_id]
    async with delivery:
        await wait_queued(store)
    assert not peer.mails
    assert await contents(store) == []
    told = list((tmp_path / "mail").rglob("new/*"))
    assert len(told) == notify
    if notify:
        assert b"554 5.0.0 Cancelled by the operator" in told[0].read_bytes()


@pytest.mark.parametrize("method", ["HoldMessage", "CancelMessage"])
async def test_what_is_being_tried_cannot_be_changed(
    store: JetStream, stub: QueueServiceStub, method: str
) -> None:
    record = mail(f"you@{FAR}")
    await submit(store, record)
    request = getattr(pb, f"{method}Request")(message_id=record.message_id)
    with failing(grpc.StatusCode.FAILED_PRECONDITION):
        await getattr(stub, method)(request)
    assert await states(store) == [State.READY]


async def test_events_are_watched_as_they_happen(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery
) -> None:
    mine, other = mail("you@example.test"), mail("you@example.test")
    watching = stub.WatchEvents(pb.WatchEventsRequest(message_id=mine.message_id), timeout=20)
    await watching.initial_metadata()  # from now on no event is missed
    async with delivery:
        await submit(store, other)
        await submit(store, mine)
        answer = await anext(aiter(watching))
    assert answer.event.message_id == mine.message_id
    watching.cancel()


async def test_dead_records_are_listed_and_put_back(
    store: JetStream, stub: QueueServiceStub, delivery: Delivery, tmp_path: Path
) -> None:
    record = mail("you@example.test")
    record.accept_time.FromDatetime(datetime.now(UTC) - timedelta(hours=2))
    foreign = Outgoing("queue.ready.example~test.other-1", record.SerializeToString())
    await store.publish(foreign)
    async with delivery:
        await until_async(lambda: store.page(DEAD_STREAM, "dead.>", after_sequence=0, count=1))
        answer = await stub.ListDeadRecords(pb.ListDeadRecordsRequest())
        (dead,) = answer.records
        assert (dead.subject, dead.size) == (foreign.subject, len(foreign.data))
        assert "another subject" in dead.reason
        with failing(grpc.StatusCode.FAILED_PRECONDITION):
            await stub.RequeueDeadRecord(pb.RequeueDeadRecordRequest(sequence=dead.sequence))
        # As if a newer release, which can read it, had come.
        headers = {SUBJECT_HEADER: f"queue.ready.example~test.{record.message_id}"}
        sequence = await store.publish(Outgoing("dead.77", record.SerializeToString(), headers))
        await stub.RequeueDeadRecord(pb.RequeueDeadRecordRequest(sequence=sequence))
        await wait_queued(store)
    answer = await stub.ListDeadRecords(pb.ListDeadRecordsRequest())
    assert [each.sequence for each in answer.records] == [dead.sequence]
    (delivered,) = (tmp_path / "mail").rglob("new/*")
    # It is as old as it was, though its record is new in the queue.
    assert delivered.name.startswith(str(record.accept_time.seconds))


async def until_async(condition: Any) -> None:
    found: list[Any] = []

    async def look() -> None:
        while not found:
            found.extend(await condition())

    async with asyncio.timeout(10):
        await look()
