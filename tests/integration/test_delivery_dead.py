"""What was set aside keeps the content of its mail, and comes back with it."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gatepost.queue.v1.record_pb2 import ContentReference, QueuedMessage
from services.common.jetstream import JetStream, Outgoing
from services.common.queue.content import chunk_digest, content_digest
from services.common.queue.record import key_of
from services.common.queue.subjects import DEAD_STREAM, State, content_subject
from services.common.store import Stored
from services.delivery.dead import SUBJECT_HEADER, dead
from services.delivery.operations import NotPossible
from services.delivery.sweeper import Sweeper
from tests.support.delivery import (
    CONTENT,
    FAR,
    Delivery,
    contents,
    local_and_far,
    mail,
    submit,
    wait_queued,
)
from tests.support.smtp_peer import SmtpPeer

NEAR = "example.test"


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def delivery(store: JetStream, peer: SmtpPeer, tmp_path: Path) -> Delivery:
    return Delivery(store, local_and_far(peer, tmp_path))


async def records_of_one_mail(store: JetStream) -> tuple[QueuedMessage, QueuedMessage]:
    """Two records that share a content, as the ingress makes them of a large mail."""
    near = mail(f"you@{NEAR}")
    far = mail(f"you@{FAR}", message_id=near.message_id)
    await store.publish(Outgoing(content_subject(near.message_id, 1), CONTENT))
    reference = ContentReference(
        content_id=near.message_id, chunks=1, sha256=content_digest([chunk_digest(CONTENT)])
    )
    for record in (near, far):
        record.content_reference.CopyFrom(reference)
    return near, far


def of_a_newer_release(record: QueuedMessage) -> Outgoing:
    """The record as this release cannot read it, on its subject."""
    newer = QueuedMessage.FromString(record.SerializeToString())
    newer.schema_version = 99
    return Outgoing(key_of(record).subject(State.READY), newer.SerializeToString())


async def set_aside(store: JetStream) -> list[Stored]:
    return await store.page(DEAD_STREAM, "dead.>", after_sequence=0, count=10)


def as_now(record: QueuedMessage) -> Outgoing:
    """The record set aside."""
    ready = key_of(record).subject(State.READY)
    return dead(7, ready, record.SerializeToString(), "schema 99")


def as_before(record: QueuedMessage) -> Outgoing:
    """The record set aside as older releases did it: the subject does not tell its mail."""
    now = as_now(record)
    return Outgoing("dead.7", now.data, now.headers)


async def test_a_content_stays_for_the_record_of_its_mail_that_was_set_aside(
    store: JetStream, delivery: Delivery, peer: SmtpPeer
) -> None:
    near, far = await records_of_one_mail(store)
    unreadable = of_a_newer_release(near)
    await store.publish(unreadable)
    async with delivery:
        await wait_queued(store)
        await submit(store, far)
        await peer.wait_mails(1)
        await wait_queued(store)
    assert await contents(store) == [content_subject(near.message_id, 1)]
    (found,) = await set_aside(store)
    assert found.subject.endswith(f"-{near.message_id}")
    assert (found.data, found.headers[SUBJECT_HEADER]) == (unreadable.data, unreadable.subject)


@pytest.mark.parametrize("form", [as_now, as_before])
async def test_a_record_comes_back_with_its_content_which_then_goes(
    store: JetStream,
    delivery: Delivery,
    peer: SmtpPeer,
    tmp_path: Path,
    form: Callable[[QueuedMessage], Outgoing],
) -> None:
    near, far = await records_of_one_mail(store)
    sequence = await store.publish(form(near))
    await submit(store, far)
    async with delivery:
        await peer.wait_mails(1)
        await wait_queued(store)
        await delivery.operations.requeue(sequence)
        await wait_queued(store)
    (delivered,) = (tmp_path / "mail").rglob("new/*")
    assert CONTENT in delivered.read_bytes()
    assert await contents(store) == []
    assert await set_aside(store) == []


@pytest.mark.parametrize("form", [as_now, as_before])
async def test_the_sweeper_leaves_the_contents_of_what_was_set_aside(
    store: JetStream, delivery: Delivery, form: Callable[[QueuedMessage], Outgoing]
) -> None:
    near, _ = await records_of_one_mail(store)
    sequence = await store.publish(form(near))
    await store.publish(Outgoing("content.gone-1.1", b"octets"))
    sweeper = Sweeper(store, delivery.suppressions, owner="a", pause_s=0)
    assert await sweeper.take_lease()
    assert await sweeper.sweep_contents(age=timedelta(0)) == 1
    assert await contents(store) == [content_subject(near.message_id, 1)]
    await store.delete(DEAD_STREAM, sequence)
    assert await sweeper.sweep_contents(age=timedelta(0)) == 1
    assert await contents(store) == []


async def test_a_record_whose_content_is_gone_is_not_put_back(
    store: JetStream, delivery: Delivery
) -> None:
    near, _ = await records_of_one_mail(store)
    sequence = await store.publish(as_now(near))
    await store.purge("CONTENT", ">")
    with pytest.raises(NotPossible, match="content"):
        await delivery.operations.requeue(sequence)
    assert len(await set_aside(store)) == 1
    await wait_queued(store)


async def test_what_stood_on_a_strange_subject_is_nobodys(
    store: JetStream, delivery: Delivery
) -> None:
    await store.publish(dead(7, "queue.ready.x~test.NO_ID", b"", "no subject of the queue"))
    await store.publish(Outgoing("content.gone-1.1", b"octets"))
    sweeper = Sweeper(store, delivery.suppressions, owner="a", pause_s=0)
    assert await sweeper.take_lease()
    assert await sweeper.sweep_contents(age=timedelta(0)) == 1
