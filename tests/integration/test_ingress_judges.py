"""How the ingress asks policy: over streams, and by calls where it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from gatepost.policy.v1.policy_pb2 import CheckEnvelopeResponse, Session
from services.common.rpc.client import channel
from services.ingress.judges import AGE_S, BUSY, FORGOTTEN_AFTER_S, LARGEST_OCTETS, PAUSE_S
from services.ingress.policy import Policy, PolicyAway
from tests.support.eventually import eventually
from tests.support.scripted_policy import ScriptedPolicy, serve

RECIPIENT = "you@example.test"


@dataclass
class Asking:
    """The ingress's side, with a clock that the test moves."""

    policy: Policy
    now: float = 0.0

    async def envelope(self, *recipients: str) -> CheckEnvelopeResponse:
        """Ask about an envelope."""
        return await self.policy.check_envelope(
            Session(session_id="s"),
            sender="ann@example.org",
            recipients=recipients or (RECIPIENT,),
            message_id="s-1",
        )


@asynccontextmanager
async def asking(*servers: ScriptedPolicy) -> AsyncIterator[Asking]:
    """Ask these replicas."""
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(serve(server)) for server in servers]
        side = await stack.enter_async_context(_towards(targets))
        yield side


@asynccontextmanager
async def _towards(targets: Sequence[str]) -> AsyncIterator[Asking]:
    opened = channel(f"ipv4:{','.join(targets)}")
    policy = Policy(opened, check_timeout_s=lambda: 5.0, clock=lambda: side.now)
    side = Asking(policy)
    try:
        yield side
    finally:
        await policy.close()
        await opened.close()


def scripted() -> ScriptedPolicy:
    return ScriptedPolicy()  # type: ignore[abstract]  # what is not scripted is not called


async def test_questions_share_a_stream_and_get_their_own_answers() -> None:
    server = scripted()
    async with asking(server) as side:
        names = [f"user{number}@example.test" for number in range(BUSY)]
        answers = await asyncio.gather(*map(side.envelope, names))
        await side.envelope()

    assert [answer.recipients[0].recipient for answer in answers] == names
    assert server.streams_opened == 1


async def test_more_streams_are_opened_while_the_others_are_busy() -> None:
    server = scripted()
    server.delay_s = 0.5
    async with asking(server) as side:
        await side.envelope()
        assert server.streams_opened == 1
        first = [asyncio.create_task(side.envelope()) for _ in range(BUSY + 1)]

        async def is_second_there() -> bool:
            return server.streams_opened == 2

        await eventually(is_second_there)
        assert len(await asyncio.gather(*first)) == BUSY + 1


async def test_a_stream_is_renewed_and_the_old_one_still_answers() -> None:
    server = scripted()
    async with asking(server) as side:
        await side.envelope()
        server.delay_s = 0.5
        old = asyncio.create_task(side.envelope())
        await asyncio.sleep(0)
        side.now = 2 * AGE_S

        answers = await asyncio.gather(old, side.envelope())

        async def is_renewed() -> bool:
            return server.streams_opened == 2

        await eventually(is_renewed)
    assert len(answers) == 2


async def test_another_replica_is_asked_when_one_goes_away_with_a_question() -> None:
    servers = scripted(), scripted()
    async with AsyncExitStack() as stack:
        stacks = [await stack.enter_async_context(AsyncExitStack()) for _ in servers]
        pairs = zip(stacks, servers, strict=True)
        targets = [await each.enter_async_context(serve(server)) for each, server in pairs]
        side = await stack.enter_async_context(_towards(targets))
        await side.envelope()
        asked = 0 if servers[0].streams_opened else 1
        servers[asked].delay_s = 60

        answering = asyncio.create_task(side.envelope())

        async def has_arrived() -> bool:
            return len(servers[asked].envelopes) == 2

        await eventually(has_arrived)
        await stacks[asked].aclose()

        assert (await answering).recipients[0].recipient == RECIPIENT
        assert len(servers[1 - asked].envelopes) == 1


async def test_a_question_that_nobody_waits_for_is_withdrawn() -> None:
    server = scripted()
    async with asking(server) as side:
        await side.envelope()
        server.delay_s = 60
        answering = asyncio.create_task(side.envelope())

        async def has_arrived() -> bool:
            return len(server.envelopes) == 2

        await eventually(has_arrived)
        answering.cancel()

        async def is_given_up() -> bool:
            return server.given_up == 1

        await eventually(is_given_up)


async def test_a_replica_without_streams_is_called() -> None:
    server = scripted()
    server.streams = False
    async with asking(server) as side:
        await side.envelope()
        server.streams = True
        await side.envelope()
        assert (len(server.envelopes), server.streams_opened) == (2, 0)

        side.now = FORGOTTEN_AFTER_S
        await side.envelope()
        assert (len(server.envelopes), server.streams_opened) == (3, 1)


async def test_a_very_large_question_goes_by_a_call() -> None:
    server = scripted()
    length = LARGEST_OCTETS // 1000
    names = [f"{number:0{length}}@example.test" for number in range(1000)]
    async with asking(server) as side:
        answer = await side.envelope(*names)

    assert [each.recipient for each in answer.recipients] == names
    assert server.streams_opened == 0


async def test_a_status_is_the_questions_own() -> None:
    server = scripted()
    async with asking(server) as side:
        await side.envelope()
        server.failure = grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(PolicyAway, match="RESOURCE_EXHAUSTED") as refused:
            await side.envelope()
        server.failure = None
        await side.envelope()

    assert not refused.value.is_silence
    assert server.streams_opened == 1


async def test_a_replica_that_falls_silent_is_left_and_found_again() -> None:
    server = scripted()
    async with asking(server) as side:
        await side.envelope()
        server.hangs = True
        with pytest.raises(PolicyAway) as away:
            await side.envelope()
        server.hangs = False
        side.now += PAUSE_S
        await side.envelope()

    assert away.value.is_silence
    assert server.streams_opened == 2


async def test_nobody_there_is_silence() -> None:
    server = scripted()
    async with serve(server) as target:
        pass
    async with _towards([target]) as side:
        with pytest.raises(PolicyAway) as away:
            await side.envelope()

    assert away.value.is_silence
