"""Two operators at one record, and operations that end in the middle: one of them has its way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from gatepost.queue.v1 import queue_pb2 as pb
from services.common.jetstream import JetStream, Outgoing
from services.common.queue.subjects import QUEUE_STREAM, State, record_filter
from services.common.store import Stored, Unavailable
from services.delivery.ledger import Ledger
from services.delivery.notifier import Notifier
from services.delivery.operations import CLAIMED, NotPossible, Operations
from services.delivery.resumption import Resumption
from services.delivery.worker import SUSPENDED
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
from tests.support.smtp_peer import SmtpPeer

WAITING = [State.DEFERRED, State.HELD]


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def delivery(store: JetStream, peer: SmtpPeer, tmp_path: Path) -> Delivery:
    return Delivery(store, local_and_far(peer, tmp_path))


class Meanwhile(Notifier):
    """Tells nobody anything; something else happens instead."""

    def __init__(self, delivery: Delivery, happens: Callable[[], Awaitable[object]]) -> None:
        store = delivery.store
        super().__init__(store, Ledger(store), delivery.events_sent, delivery.source)
        self._happens = happens

    async def notify(self, *_: object) -> None:
        await self._happens()


async def nothing(*_: object) -> None:
    pass


def operator(
    delivery: Delivery,
    *,
    after: timedelta = timedelta(0),
    meanwhile: Callable[[], Awaitable[object]] = nothing,
) -> Operations:
    """An operator who comes some time later, and what happens while he tells a sender."""
    return Operations(
        delivery.store,
        Meanwhile(delivery, meanwhile),
        lambda: datetime.now(UTC) + after,
        on_retry=nothing,
    )


LATER = timedelta(minutes=2)
"""When a claim of now has ended."""


async def listed(store: JetStream) -> list[Stored]:
    return await store.page(QUEUE_STREAM, record_filter(), after_sequence=0, count=100)


async def newest(store: JetStream) -> Stored:
    return (await listed(store))[-1]


async def states(store: JetStream) -> list[State]:
    return sorted(state for state, _ in await queued(store))


def cut_off(patch: pytest.MonkeyPatch, store: JetStream, method: str, begins: str) -> None:
    """The process ends before a step on subjects that begin so, as far as the queue can see."""
    step = getattr(store, method)

    async def cut(*arguments: Any, **options: Any) -> Any:
        subject = arguments[1] if method == "purge" else arguments[0].subject
        if subject.startswith(begins):
            raise Unavailable("cut off")
        return await step(*arguments, **options)

    patch.setattr(store, method, cut)


# --- two at a time ------------------------------------------------------------------------------


async def test_of_two_releases_one_counts(store: JetStream, delivery: Delivery) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), state=State.HELD)
    (seen,) = await listed(store)
    released = await delivery.operations.release(seen)
    assert released is not None
    assert await states(store) == [State.READY]
    await store.delete(QUEUE_STREAM, released.sequence)  # as if it had been delivered
    with pytest.raises(NotPossible):
        await delivery.operations.release(seen)
    assert await states(store) == []


async def test_mail_that_is_being_cancelled_goes_on_for_nobody(
    store: JetStream, delivery: Delivery
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), reason=SUSPENDED)
    resumption = Resumption(store, delivery.operations, delivery.destinations)
    refused = []

    async def others_try() -> None:
        assert await resumption.make_due(FAR) == 0
        for operation in (
            delivery.operations.retry,
            delivery.operations.hold,
            lambda stored: delivery.operations.cancel(stored, notify=False),
        ):
            with pytest.raises(NotPossible, match="being changed"):
                await operation(await newest(store))
            refused.append(operation)

    operations = operator(delivery, meanwhile=others_try)
    await operations.cancel(await newest(store), notify=True)
    assert len(refused) == 3
    assert await listed(store) == []
    assert await contents(store) == []


async def test_held_mail_that_is_being_cancelled_is_released_by_nobody(
    store: JetStream, delivery: Delivery
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), state=State.HELD)
    (seen,) = await listed(store)
    refused = []

    async def others_try() -> None:
        for stored in (seen, await newest(store)):
            with pytest.raises(NotPossible):
                await delivery.operations.release(stored)
            refused.append(stored)

    await operator(delivery, meanwhile=others_try).cancel(seen, notify=True)
    assert len(refused) == 2
    assert await listed(store) == []
    assert await contents(store) == []


@pytest.mark.parametrize("state", WAITING)
async def test_a_cancel_that_takes_too_long_takes_no_content_from_others(
    store: JetStream, delivery: Delivery, peer: SmtpPeer, state: State
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), state=state)
    another = operator(delivery, after=LATER)
    goes_on = another.release if state is State.HELD else another.make_due

    async def taken_over() -> None:
        await goes_on(await newest(store))

    (seen,) = await listed(store)
    with pytest.raises(NotPossible, match="moved"):
        await operator(delivery, meanwhile=taken_over).cancel(seen, notify=True)
    assert len(await contents(store)) == 1


async def test_what_is_being_tried_is_not_released_again(
    store: JetStream, delivery: Delivery
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record, state=State.HELD)
    (seen,) = await listed(store)
    await submit(store, record)  # as a release leaves it that did not come to its end
    for operation in (
        delivery.operations.release,
        lambda stored: delivery.operations.cancel(stored, notify=False),
    ):
        with pytest.raises(NotPossible, match="tried"):
            await operation(seen)
    assert await states(store) == [State.HELD, State.READY]


# --- cut off ------------------------------------------------------------------------------------


async def test_mail_that_comes_due_while_it_is_held_is_not_delivered(
    store: JetStream, delivery: Delivery, peer: SmtpPeer
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record, state=State.HELD)
    record.due_time.FromDatetime(datetime.now(UTC))
    record.wait_reason = CLAIMED  # as of a hold that was cut off a day ago
    await submit(store, record)
    async with delivery:
        await wait_queued(store, State.HELD)
    assert not peer.mails
    assert len(await contents(store)) == 1


async def test_a_hold_that_was_cut_off_can_be_done_again(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"))
    with monkeypatch.context() as patch:
        cut_off(patch, store, "publish", "queue.held.")
        with pytest.raises(Unavailable):
            await delivery.operations.hold(await newest(store))
    assert await states(store) == [State.DEFERRED]
    with pytest.raises(NotPossible):
        await delivery.operations.hold(await newest(store))
    await operator(delivery, after=LATER).hold(await newest(store))
    assert await states(store) == [State.HELD]


async def test_a_release_leaves_nothing_of_a_hold_that_was_cut_off(
    store: JetStream, delivery: Delivery, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"))
    with monkeypatch.context() as patch:
        cut_off(patch, store, "purge", "queue.deferred.")
        with pytest.raises(Unavailable):
            await delivery.operations.hold(await newest(store))
    assert await states(store) == WAITING
    await delivery.operations.release(await newest(store))
    assert await states(store) == [State.READY]


async def test_a_cancel_that_was_cut_off_leaves_held_mail_that_can_be_released(
    store: JetStream, delivery: Delivery, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), state=State.HELD)
    with monkeypatch.context() as patch:
        cut_off(patch, store, "purge", "queue.held.")
        with pytest.raises(Unavailable):
            await delivery.operations.cancel(await newest(store), notify=False)
    assert len(await contents(store)) == 1
    with monkeypatch.context() as patch:
        cut_off(patch, store, "purge", "queue.held.")
        with pytest.raises(Unavailable):
            await operator(delivery, after=LATER).release(await newest(store))
    async with delivery:
        await wait_queued(store)
    assert len(peer.mails) == 1
    assert await contents(store) == []


async def test_mail_that_is_held_keeps_its_reason(store: JetStream, delivery: Delivery) -> None:
    await put_to_wait(store, mail(f"you@{FAR}"), reason="451 full")
    await delivery.operations.hold(await newest(store))
    ((state, record),) = await queued(store)
    assert (state, record.wait_reason) == (State.HELD, "451 full")


# --- callers who go away ------------------------------------------------------------------------


async def test_a_hold_whose_caller_goes_away_is_brought_to_its_end_and_no_other_is_begun(
    store: JetStream, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mail(f"you@{FAR}")
    second = mail("you@example.test", message_id=first.message_id)
    await put_to_wait(store, first, second)
    publish = store.publish
    caller: asyncio.Task[Any] | None = None

    async def interrupted(message: Outgoing, **options: Any) -> int:
        sequence = await publish(message, **options)
        if message.subject.startswith("queue.held.") and caller is not None:
            caller.cancel()
            await asyncio.wait({caller})
        return sequence

    monkeypatch.setattr(store, "publish", interrupted)
    request = pb.HoldMessageRequest(message_id=first.message_id)
    caller = asyncio.create_task(delivery.service.HoldMessage(request, cast(Any, None)))
    with pytest.raises(asyncio.CancelledError):
        await caller
    await delivery.service.finish()
    found = {record.destination: state for state, record in await queued(store)}
    assert found == {first.destination: State.HELD, second.destination: State.DEFERRED}
    assert len(await events(store, first.message_id)) == 1


async def test_a_change_that_fails_when_nobody_waits_for_it_is_told_in_the_log(
    store: JetStream,
    delivery: Delivery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = mail(f"you@{FAR}")
    await put_to_wait(store, record)
    caller: asyncio.Task[Any] | None = None

    async def interrupted(*_: object, **__: object) -> int:
        assert caller is not None
        caller.cancel()
        await asyncio.wait({caller})
        raise Unavailable("gone too")

    monkeypatch.setattr(store, "publish", interrupted)
    request = pb.HoldMessageRequest(message_id=record.message_id)
    with caplog.at_level("INFO"):
        caller = asyncio.create_task(delivery.service.HoldMessage(request, cast(Any, None)))
        with pytest.raises(asyncio.CancelledError):
            await caller
        await delivery.service.finish()
        await asyncio.sleep(0)
    assert "nobody waited" in caplog.text
