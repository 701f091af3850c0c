"""Who can be judged at once does not wait for those who cannot."""

import asyncio

import pytest

from services.common.dns import Answer, RecordType, Resolver, Status
from services.common.turns import Turns
from services.policy import judge
from services.policy.checks import invalid_sender
from services.policy.checks.check import Means
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means

COLD = 1000
ROUNDS_TO_ARRIVE = 10
"""A call takes so many rounds of the event loop until it is at its handler, or more."""


class SlicedResolver:
    """Knows one domain; finds out about others in slices, as the real one does."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        return Answer(name, rdtype, Status.NO_DATA) if name == "warm.test" else None

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        for _ in range(3):
            await self._turns.next()
        return Answer(name, rdtype, Status.NO_DATA)


def means_of(resolver: Resolver, turns: Turns) -> Means:
    plain = means(FakeResolver())
    return Means(resolver, plain.policy, plain.hostname, turns=turns)


async def judged(domain: str, with_: Means) -> str:
    subject = envelope(sender=f"user@{domain}")
    [(finding, _)] = await judge.run_checks([invalid_sender.CHECK], subject, with_, seconds=30)
    return finding.result


async def test_a_warm_check_overtakes_a_thousand_cold_ones() -> None:
    turns = Turns()
    common = means_of(SlicedResolver(turns), turns)
    cold = [asyncio.create_task(judged(f"c{number}.test", common)) for number in range(COLD)]
    for _ in range(ROUNDS_TO_ARRIVE):
        await asyncio.sleep(0)
    assert await judged("warm.test", common) == "pass"
    assert sum(task.done() for task in cold) < COLD / 10
    assert await asyncio.gather(*cold) == ["pass"] * COLD


async def test_cold_checks_are_done_one_after_the_other() -> None:
    """Not all at the end: who began first is answered while others have not begun."""
    turns = Turns()
    common = means_of(SlicedResolver(turns), turns)
    cold = [asyncio.create_task(judged(f"c{number}.test", common)) for number in range(COLD)]
    await asyncio.wait(cold, return_when=asyncio.FIRST_COMPLETED)
    assert sum(task.done() for task in cold) < COLD / 10
    await asyncio.gather(*cold)


async def test_waiting_for_a_turn_is_part_of_the_time_that_a_check_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns()

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(turns, "begin", never)
    common = means_of(SlicedResolver(turns), turns)
    subject = envelope(sender="user@cold.test")
    [(finding, _)] = await judge.run_checks([invalid_sender.CHECK], subject, common, seconds=0.01)
    assert finding.result == "temperror"
