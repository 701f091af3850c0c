"""Mail for one place does not wait for mail for others, however much there is of it."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from prometheus_client import REGISTRY

from services.common.jetstream import JetStream
from services.common.queue.subjects import (
    QUEUE_STREAM,
)
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from services.delivery.precedence import BEHIND_S, PLACES
from tests.support.booked import booked, collect, submit_all
from tests.support.delivery import (
    Delivery,
    contents,
    wait_queued,
)
from tests.support.ledger import Ledger
from tests.support.smtp_peer import Silence, SmtpPeer

STUCK, FREE = "stuck.test", "free.test"


async def in_queue(store: JetStream) -> int:
    """How many mails are there. A process that was stopped leaves some in two states."""
    subjects = await store.subjects(QUEUE_STREAM, "queue.>", offset=0)
    return len({subject.rpartition(".")[2] for subject in subjects})


def made_way_for_fresh() -> float:
    """How many records were put back because delivery was behind."""
    return REGISTRY.get_sample_value("gatepost_delivery_parked_total", {"reason": "behind"}) or 0.0


def relays(**peers: SmtpPeer) -> dict[str, Any]:
    hops = {f"{name}.test": f"smtp:127.0.0.1:{peer.port}" for name, peer in peers.items()}
    return {"domains": {"relay": hops}}


async def test_a_pile_for_one_destination_is_put_back_and_the_others_pass(
    store: JetStream,
) -> None:
    ledger = Ledger()
    async with SmtpPeer(dot=Silence()) as stuck, SmtpPeer() as free:
        async with Delivery(store, relays(stuck=stuck, free=free), drain_s=0.1):
            await submit_all(store, booked(Ledger(), [f"you@{STUCK}"] * 2000))
            await submit_all(store, booked(ledger, [f"you@{FREE}"] * 100))
            collect(ledger, await free.wait_mails(100, seconds=40))
            assert stuck.most_open <= 20
            # A free one leaves the queue once its peer's word is acknowledged.
            deadline = time.monotonic() + 40
            while await in_queue(store) > 2000:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        assert ledger.problems(duplicates_allowed=0) == []
        assert not stuck.mails
        assert await in_queue(store) == 2000


async def test_retries_that_are_due_together_leave_room_for_fresh_mail(store: JetStream) -> None:
    """After an absence: everything was tried before, and nobody gets as far as the greeting."""
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(SmtpPeer(greeting=Silence())) for _ in range(30)]
        free = await stack.enter_async_context(SmtpPeer())
        retries = booked(Ledger(), [f"you@slow{number % 30}.test" for number in range(600)])
        for record in retries:
            record.due_time.FromDatetime(datetime.now(UTC))
            record.attempts = 1
        await asyncio.gather(*(move_to_stream(Batcher(store), each) for each in retries))
        await submit_all(store, retries)
        await asyncio.sleep(BEHIND_S + 0.5)
        named = {f"slow{number}": peer for number, peer in enumerate(slow)}
        before = made_way_for_fresh()
        async with Delivery(store, relays(free=free, **named), drain_s=0.1):
            await submit_all(store, booked(ledger, [f"you@{FREE}"] * 100))
            collect(ledger, await free.wait_mails(100, seconds=40))
            assert made_way_for_fresh() - before >= len(retries) - PLACES
        assert ledger.problems(duplicates_allowed=0) == []


async def test_all_destinations_defer_and_in_the_end_everything_is_delivered_once(
    store: JetStream,
) -> None:
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        refusing = ["451 4.3.0 not now"] * 150 + ["250 ok"]
        peers = [await stack.enter_async_context(SmtpPeer(rcpt=list(refusing))) for _ in range(4)]
        free = await stack.enter_async_context(SmtpPeer())
        config = relays(free=free, **{f"d{number}": peer for number, peer in enumerate(peers)})
        config["delivery"] = {"retry": {"interval": "2s"}}
        async with Delivery(store, config):
            await submit_all(store, booked(ledger, [f"you@d{n % 4}.test" for n in range(400)]))
            await submit_all(store, booked(ledger, [f"you@{FREE}"] * 20))
            collect(ledger, await free.wait_mails(20, seconds=30))
            await wait_queued(store, seconds=45)
        for peer in peers:
            collect(ledger, peer.mails)
        assert ledger.problems(duplicates_allowed=0) == []
    assert await contents(store) == []
