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
