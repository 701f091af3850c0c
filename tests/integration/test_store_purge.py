"""What a purge removes, and what it leaves."""

from services.common.jetstream import JetStream
from services.common.queue.subjects import DEAD_STREAM, QUEUE_STREAM, RecordKey, State
from services.common.store import Outgoing


async def test_what_came_later_is_not_purged(store: JetStream) -> None:
    subject, other = (RecordKey("a.test", name).subject(State.HELD) for name in ("m-1", "m-2"))
    await store.publish(Outgoing(subject, b"1"))
    await store.publish(Outgoing(other, b"other"))
    second = await store.publish(Outgoing(subject, b"2"))
    await store.publish(Outgoing(subject, b"3"))
    assert await store.purge(QUEUE_STREAM, subject, up_to=second) == 2
    left = await store.page(QUEUE_STREAM, ">", after_sequence=0, count=10)
    assert [each.data for each in left] == [b"other", b"3"]
    assert await store.purge(QUEUE_STREAM, subject) == 1


async def test_what_is_gone_already_can_be_deleted(store: JetStream) -> None:
    sequences = [await store.publish(Outgoing(f"dead.{number}", b"")) for number in range(3)]
    for sequence in (sequences[1], sequences[0], sequences[2]):
        await store.delete(DEAD_STREAM, sequence)
        await store.delete(DEAD_STREAM, sequence)
    await store.delete(DEAD_STREAM, sequences[-1] + 100)
    assert await store.page(DEAD_STREAM, "dead.>", after_sequence=0, count=10) == []
