"""Mail into mailboxes, from the queue to the file."""

from pathlib import Path
from typing import Any

import pytest

from services.common.jetstream import JetStream, Stored, Unavailable
from services.common.queue.record import pending
from services.common.queue.subjects import CONTENT_STREAM, State
from services.delivery.batcher import Batcher
from services.delivery.content import move_to_stream
from tests.support.delivery import (
    CONTENT,
    Delivery,
    events,
    mail,
    submit,
    wait_queued,
)


def _config(folder: Path) -> dict[str, Any]:
    return {"domains": {"local": ["example.test"]}, "mailbox": {"directory": str(folder)}}


async def test_a_mail_arrives_whole_and_leaves_the_queue(store: JetStream, tmp_path: Path) -> None:
    record = mail("you@example.test", "Zoe@example.test")
    async with Delivery(store, _config(tmp_path)):
        await submit(store, record)
        await wait_queued(store)
    for name in ("you", "zoe"):
        (file,) = (tmp_path / "example.test" / name / "new").iterdir()
        head, _, rest = file.read_bytes().partition(b"From:")
        assert b"From:" + rest == CONTENT
        address = {"you": b"you", "zoe": b"Zoe"}[name] + b"@example.test"
        assert head == b"Return-Path: <me@example.org>\r\nDelivered-To: " + address + b"\r\n"
    (happened,) = await events(store, record.message_id)
    assert [each.address for each in happened.attempt.recipients] == [
        "you@example.test",
        "Zoe@example.test",
    ]


async def test_content_that_one_could_not_read_is_delivered_once_to_the_others(
    store: JetStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"{name}@example.test" for name in ("ann", "bob", "cy")]
    record = mail(*addresses)
    await move_to_stream(Batcher(store), record)
    last, reads = store.last, 0

    async def fails_once(stream: str, subject: str) -> Stored | None:
        nonlocal reads
        reads += stream == CONTENT_STREAM
        if stream == CONTENT_STREAM and reads == 2:
            raise Unavailable("not connected to NATS")
        return await last(stream, subject)

    monkeypatch.setattr(store, "last", fails_once)
    config = _config(tmp_path) | {"delivery": {"retry": {"interval": "1s"}}}
    async with Delivery(store, config):
        await submit(store, record)
        await wait_queued(store, seconds=30)
    first, second = (each.attempt.recipients for each in await events(store, record.message_id))
    assert [each.address for each in first] == addresses
    assert sorted(each.reply.code for each in first) == [250, 250, 451]
    assert [each.address for each in second] == [
        each.address for each in first if each.reply.code == 451
    ]
    for name in ("ann", "bob", "cy"):
        assert len(list((tmp_path / "example.test" / name / "new").iterdir())) == 1
        assert not list((tmp_path / "example.test" / name / "tmp").iterdir())


# --- quotas -------------------------------------------------------------------------------------


def with_quota(folder: Path, **mailbox: Any) -> dict[str, Any]:
    config = _config(folder)
    config["mailbox"].update(mailbox)
    config["delivery"] = {"retry": {"interval": "2s"}}
    return config


async def test_mail_waits_while_the_mailbox_is_full(store: JetStream, tmp_path: Path) -> None:
    big = b"Subject: big\r\n\r\n" + b"x" * 8000 + b"\r\n"
    config = with_quota(tmp_path, quota="20KB", quotas={"Zoe@example.test": "0"})
    async with Delivery(store, config):
        for _ in range(2):
            await submit(store, mail("you@example.test", "zoe@example.test", content=big))
            await wait_queued(store)
        await submit(store, mail("you@example.test", "zoe@example.test", content=big))
        (waiting,) = await wait_queued(store, State.DEFERRED)
        assert waiting.wait_reason == "452 4.2.2 The mailbox is full"
        assert [each.address for each in pending(waiting)] == ["you@example.test"]
        box = tmp_path / "example.test" / "you"
        assert len(list((tmp_path / "example.test" / "zoe" / "new").iterdir())) == 3
        # A reader of mail that keeps the account of the mailbox deletes one.
        gone = next(iter((box / "new").iterdir()))
        with (box / "maildirsize").open("a", encoding="ascii") as file:
            file.write(f"-{gone.stat().st_size} -1\n")
        gone.unlink()
        await wait_queued(store)
    assert len(list((box / "new").iterdir())) == 2
    assert not list((box / "tmp").iterdir())
