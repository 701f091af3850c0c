"""Several mailboxes in one attempt: each has a result of its own, and none is left behind."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient
from services.common.jetstream import Unavailable
from services.delivery.attempt import CONTENT_UNREADABLE, Attempt, Attempts
from services.delivery.content import Content, ContentError
from services.delivery.local import LocalDelivery
from services.delivery.maildir import STORED
from services.delivery.outcome import Result, result_of
from services.delivery.remote import RemoteDelivery
from services.delivery.route import LocalRoute
from services.delivery.signing import Signer
from tests.support.delivery import FixedConfig, mail

RECORD = mail("ann@example.test", "bob@example.test", "cy@example.test")


class Mailboxes:
    """Deposits that fail at once as told; the others wait for the word to go on."""

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        self.go_on = asyncio.Event()
        self.under_way: set[str] = set()
        self.all_under_way = asyncio.Event()
        self._failures = failures

    async def deliver(
        self, directory: Path, record: QueuedMessage, content: Content, recipient: Recipient
    ) -> Result:
        name = recipient.address.partition("@")[0]
        if name in self._failures:
            raise self._failures[name]
        self.under_way.add(name)
        if len(self.under_way) + len(self._failures) == len(record.recipients):
            self.all_under_way.set()
        try:
            await self.go_on.wait()
        finally:
            self.under_way.remove(name)
        return result_of(STORED)


def begun(mailboxes: Mailboxes) -> asyncio.Task[Attempt]:
    attempts = Attempts(
        FixedConfig({}),
        local=cast(LocalDelivery, mailboxes),
        remote=cast(RemoteDelivery, None),
        signer=cast(Signer, None),
    )
    content = cast(Content, None)
    return asyncio.create_task(attempts.make(LocalRoute(Path("/nowhere")), RECORD, content))


@pytest.mark.expect_warnings("content cannot be read")
@pytest.mark.parametrize(
    "failure", [Unavailable("away"), ContentError("altered")], ids=["store", "content"]
)
async def test_unreadable_content_counts_for_whom_it_was_read(failure: Exception) -> None:
    mailboxes = Mailboxes({"bob": failure})
    task = begun(mailboxes)
    await mailboxes.all_under_way.wait()
    mailboxes.go_on.set()
    stored = result_of(STORED)
    assert (await task).results == [stored, result_of(CONTENT_UNREADABLE), stored]


async def test_an_error_of_ours_is_raised_once_all_have_ended() -> None:
    mailboxes = Mailboxes({"ann": RuntimeError("ours")})
    task = begun(mailboxes)
    await mailboxes.all_under_way.wait()
    asyncio.get_running_loop().call_soon(mailboxes.go_on.set)
    with pytest.raises(RuntimeError, match="ours"):
        await task
    assert not mailboxes.under_way


async def test_to_cancel_an_attempt_cancels_all_that_is_under_way() -> None:
    mailboxes = Mailboxes({"ann": RuntimeError("ours")})
    task = begun(mailboxes)
    await mailboxes.all_under_way.wait()
    # Whoever gives up at the first failure has done so after a few rounds.
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not mailboxes.under_way
