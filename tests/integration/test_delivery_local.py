"""Mail into mailboxes, from the queue to the file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.common.jetstream import JetStream
from tests.support.delivery import (
    CONTENT,
    Delivery,
    connected_store,
    events,
    mail,
    submit,
    wait_queued,
)
from tests.support.nats_server import NatsServer


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    store = await connected_store(nats_server.url)
    yield store
    await store.close()


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
