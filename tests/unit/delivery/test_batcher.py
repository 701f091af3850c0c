"""What one message of a batch costs the others."""

import asyncio
from collections.abc import Sequence

import pytest

from services.common.jetstream import JetStream, Outgoing
from services.common.store import NatsSettings, TooLarge
from services.delivery.batcher import Batcher


class PickyStore(JetStream):
    """Takes nothing on the subject "bad", and nothing beside it."""

    def __init__(self) -> None:
        super().__init__(NatsSettings(urls=[], client_name="test"))
        self.taken: list[str] = []

    async def publish_batch(self, messages: Sequence[Outgoing], *, timeout_s: float = 5.0) -> None:
        if any(message.subject == "bad" for message in messages):
            raise TooLarge("too long")
        self.taken += [message.subject for message in messages]


async def test_a_message_that_is_refused_costs_the_others_of_its_batch_nothing() -> None:
    store = PickyStore()
    batcher = Batcher(store)
    subjects = ["one", "bad", "two"]
    outcomes = await asyncio.gather(
        *(batcher.publish(Outgoing(each, b"x"), expected_last_sequence=0) for each in subjects),
        return_exceptions=True,
    )
    assert sorted(store.taken) == ["one", "two"]
    assert [type(outcome) for outcome in outcomes] == [type(None), TooLarge, type(None)]


async def test_a_message_alone_that_is_refused_is_not_tried_again() -> None:
    with pytest.raises(TooLarge):
        await Batcher(PickyStore()).publish(Outgoing("bad", b"x"), expected_last_sequence=0)


class GatedStore(JetStream):
    """Takes the first batch only when the gate opens, and refuses "bad" with all beside it."""

    def __init__(self) -> None:
        super().__init__(NatsSettings(urls=[], client_name="test"))
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.taken: list[str] = []

    async def publish_batch(self, messages: Sequence[Outgoing], *, timeout_s: float = 5.0) -> None:
        self.asked.set()
        await self.gate.wait()
        if any(message.subject == "bad" for message in messages):
            raise TooLarge("too long")
        self.taken += [message.subject for message in messages]


def publishing(batcher: Batcher, subject: str) -> asyncio.Task[None]:
    return asyncio.create_task(
        batcher.publish(Outgoing(subject, b"x"), expected_last_sequence=0), name=subject
    )


@pytest.mark.parametrize("others", [[], ["another"]], ids=["alone", "beside another"])
async def test_nothing_goes_out_for_one_who_was_cancelled(others: list[str]) -> None:
    store = GatedStore()
    batcher = Batcher(store)
    first = publishing(batcher, "first")
    await store.asked.wait()
    late = publishing(batcher, "late")
    rest = [publishing(batcher, subject) for subject in others]
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait({late})
    store.gate.set()
    await asyncio.gather(first, *rest)
    await publishing(batcher, "last")
    assert store.taken == ["first", *others, "last"]


async def test_one_who_was_cancelled_is_not_tried_again_alone() -> None:
    store = GatedStore()
    batcher = Batcher(store)
    tasks = {subject: publishing(batcher, subject) for subject in ("bad", "late", "other")}
    await store.asked.wait()
    tasks["late"].cancel()
    await asyncio.wait({tasks["late"]})
    store.gate.set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert store.taken == ["other"]
