"""One stream of questions: what goes together, and who has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gatepost.policy.v1 import policy_pb2 as pb
from services.policy.conversation import BATCH_OCTETS, UNSENT, Asker, Conversation

LARGE = "x" * (BATCH_OCTETS // 2 + 1)


async def echo(request: pb.CheckEnvelopeRequest, _: Asker) -> pb.CheckEnvelopeResponse:
    """Answers with the sender."""
    return pb.CheckEnvelopeResponse(recipients=[pb.RecipientAnswer(recipient=request.sender)])


def questions(*senders: str) -> list[pb.Question]:
    return [
        pb.Question(number=number, envelope=pb.CheckEnvelopeRequest(sender=sender))
        for number, sender in enumerate(senders)
    ]


async def stream(requests: Sequence[pb.JudgeRequest]) -> AsyncIterator[pb.JudgeRequest]:
    for request in requests:
        yield request


async def shape(requests: Sequence[pb.JudgeRequest]) -> list[list[int]]:
    """The numbers of the answers, response by response."""
    conversation = Conversation({"envelope": echo})
    return [
        [answer.number for answer in response.answers]
        async for response in conversation.responses(stream(requests))
    ]


async def test_answers_of_the_same_moment_leave_together() -> None:
    assert await shape([pb.JudgeRequest(questions=questions("a", "b", "c"))]) == [[0, 1, 2]]


async def test_large_answers_leave_one_by_one() -> None:
    assert await shape([pb.JudgeRequest(questions=questions(LARGE, LARGE, "c"))]) == [[0], [1, 2]]


async def test_who_does_not_take_the_answers_is_not_asked_for_more() -> None:
    taken = 0

    async def endless() -> AsyncIterator[pb.JudgeRequest]:
        nonlocal taken
        for _ in range(100 * UNSENT):
            taken += 1
            yield pb.JudgeRequest()

    responses = Conversation({"envelope": echo}).responses(endless())
    await anext(responses)
    for _ in range(1000):
        await asyncio.sleep(0)

    assert taken <= UNSENT + 1
    assert [response async for response in responses] == [pb.JudgeResponse()] * (100 * UNSENT - 1)
