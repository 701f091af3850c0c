"""Recipients that were refused for good are not tried again, and operators have the last word."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatepost.queue.v1 import queue_pb2 as pb
from services.common.jetstream import JetStream
from services.common.mail.address import parse_mailbox
from services.common.store import Stored
from services.delivery.suppressions import Suppression
from tests.support.delivery import Delivery, mail, submit, until, wait_queued
from tests.support.queue_calls import QueueStub, queue_calls
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import Raw, Script, SmtpPeer

FAR = "far.test"
GONE, OTHER = f"gone@{FAR}", f"other@{FAR}"
UNKNOWN = "550 5.1.1 User unknown"


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer(rcpt=["550 5.1.1 no such user", "250 2.1.5 ok"]) as peer:
        yield peer


def delivery_to(store: JetStream, peer: SmtpPeer, folder: Path, **suppressions: Any) -> Delivery:
    """example.test has its mailboxes here, FAR has a mail exchange."""
    records = {(FAR, "MX"): ["10 mx.far.test"], ("mx.far.test", "A"): ["127.0.0.1"]}
    config = {
        "domains": {"local": ["example.test"]},
        "mailbox": {"directory": str(folder / "mail")},
        "delivery": {"allowed_networks": ["127.0.0.0/8"], "suppressions": suppressions},
    }
    return Delivery(store, config, resolver=FakeResolver(records), mx_port=peer.port)


def reports(folder: Path) -> list[bytes]:
    new = folder / "mail" / "example.test" / "me" / "new"
    return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []


async def send(store: JetStream, *recipients: str) -> None:
    await submit(store, mail(*recipients, sender="me@example.test"))
    await wait_queued(store)


async def test_who_was_refused_is_not_tried_again(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    async with delivery_to(store, peer, tmp_path, enabled=True) as delivery:
        await send(store, GONE)
        await until(lambda: len(reports(tmp_path)) == 1)
        # The peer would take it now, in whatever spelling.
        await send(store, GONE.replace("gone", "Gone"), OTHER)
        await until(lambda: len(reports(tmp_path)) == 2)
        assert [taken.rcpt_to for taken in peer.mails] == [[OTHER]]
        (entry,) = (await delivery.suppressions.find([parse_mailbox(GONE)])).values()
        assert "550 5.1.1 no such user" in entry.reason
        assert not entry.by_hand
    (report,) = [each for each in reports(tmp_path) if b"suppression list" in each]
    assert b"no such user" in report
    assert b"Action: failed\r\nStatus: 5.1.1\r\n" in report
    assert OTHER.encode() not in report


async def test_without_the_setting_nobody_is_listed(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    async with delivery_to(store, peer, tmp_path) as delivery:
        await send(store, GONE)
        await send(store, GONE)
        assert [taken.rcpt_to for taken in peer.mails] == [[GONE]]
        assert await delivery.suppressions.find([parse_mailbox(GONE)]) == {}


@pytest.mark.parametrize(
    "reply",
    ["550 5.7.1 not from you", "552 5.3.4 too big", "553 no", "550 5.1.8 bad sender"],
    ids=["policy", "size", "bare", "sender"],
)
async def test_what_is_not_about_the_address_lists_nobody(
    store: JetStream, peer: SmtpPeer, tmp_path: Path, reply: str
) -> None:
    peer.script(rcpt=reply)
    async with delivery_to(store, peer, tmp_path, enabled=True) as delivery:
        await send(store, GONE)
        await until(lambda: len(reports(tmp_path)) == 1)
        assert await delivery.suppressions.find([parse_mailbox(GONE)]) == {}


async def on_the_list(delivery: Delivery, *addresses: str) -> list[str]:
    """Those of them that are on the list. Once the delivery has ended it has learnt all."""
    found = await delivery.suppressions.find([parse_mailbox(each) for each in addresses])
    return sorted(str(entry.mailbox) for entry in found.values())


@pytest.mark.parametrize(
    ("scripts", "listed_alone"),
    [
        ({"dot": UNKNOWN}, [GONE]),
        ({"data": UNKNOWN}, [GONE]),
        ({"data": Raw(f"354 go on\r\n{UNKNOWN}\r\n".encode())}, [GONE]),
        # Said before any recipient was named.
        ({"mail": UNKNOWN}, []),
    ],
    ids=["dot", "data", "content", "mail"],
)
async def test_one_reply_to_several_lists_none_of_them(
    store: JetStream,
    peer: SmtpPeer,
    tmp_path: Path,
    scripts: dict[str, Script],
    listed_alone: list[str],
) -> None:
    peer.script(rcpt="250 2.1.5 ok", **scripts)
    async with delivery_to(store, peer, tmp_path, enabled=True) as delivery:
        await send(store, GONE, OTHER)
    assert await on_the_list(delivery, GONE, OTHER) == []
    async with delivery_to(store, peer, tmp_path, enabled=True) as delivery:
        await send(store, GONE)
    assert await on_the_list(delivery, GONE, OTHER) == listed_alone


async def test_who_was_refused_by_name_is_listed_and_not_those_beside_him(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    peer.script(dot=UNKNOWN)
    third = f"third@{FAR}"
    async with delivery_to(store, peer, tmp_path, enabled=True) as delivery:
        await send(store, GONE, OTHER, third)
    assert await on_the_list(delivery, GONE, OTHER, third) == [GONE]


async def test_an_entry_expires_unless_an_operator_made_it(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    peer.script(rcpt="250 2.1.5 ok")
    async with delivery_to(store, peer, tmp_path, enabled=True, expire_after="30d") as delivery:
        old = datetime.now(UTC) - timedelta(days=31)
        listed = delivery.suppressions
        await listed.add(Suppression(parse_mailbox(GONE), old, "550 5.1.1 no"))
        await listed.add(Suppression(parse_mailbox(OTHER), old, "asked us", by_hand=True))
        assert [entry.mailbox for _, entry in await listed.page(after=0, count=10)] == [
            parse_mailbox(OTHER)
        ]
        await send(store, GONE, OTHER)
        assert [taken.rcpt_to for taken in peer.mails] == [[GONE]]
        assert await listed.expire(pause_s=0) == 1
        assert await listed.expire(pause_s=0) == 0
        assert await listed.remove(parse_mailbox(OTHER))


async def test_an_entry_that_is_renewed_while_the_list_is_read_does_not_expire(
    store: JetStream, peer: SmtpPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_to(store, peer, tmp_path, enabled=True, expire_after="30d")
    listed, page = delivery.suppressions, store.page
    old = datetime.now(UTC) - timedelta(days=31)
    await listed.add(Suppression(parse_mailbox(GONE), old, "550 5.1.1 no"))

    async def renewed_meanwhile(*arguments: Any, **named: Any) -> list[Stored]:
        found = await page(*arguments, **named)
        if not named["after_sequence"]:
            await listed.add_by_hand(parse_mailbox(GONE), "asked us")
        return found

    monkeypatch.setattr(store, "page", renewed_meanwhile)
    assert await listed.expire(pause_s=0) == 0
    assert await on_the_list(delivery, GONE) == [GONE]


async def test_operators_list_add_and_remove(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    peer.script(rcpt="250 2.1.5 ok")
    delivery = delivery_to(store, peer, tmp_path, enabled=True)
    async with delivery, queue_calls(delivery, tmp_path) as stub:
        for number in range(5):
            await add(stub, f"you{number}@{FAR}", reason="asked\nus")
        addresses, token = [], ""
        while True:
            request = pb.ListSuppressionsRequest(page_size=2, page_token=token)
            answer = await stub.ListSuppressions(request)
            addresses += [entry.address for entry in answer.suppressions]
            token = answer.next_page_token
            if not token:
                break
        assert addresses == [f"you{number}@{FAR}" for number in range(5)]
        request = pb.ListSuppressionsRequest(address=f"YOU3@{FAR}")
        (entry,) = (await stub.ListSuppressions(request)).suppressions
        assert (entry.reason, entry.by_hand) == ("asked us", True)
        await send(store, f"you3@{FAR}")
        assert not peer.mails
        await stub.RemoveSuppression(pb.RemoveSuppressionRequest(address=f"you3@{FAR}"))
        await send(store, f"you3@{FAR}")
        assert len(peer.mails) == 1


async def add(stub: QueueStub, address: str, *, reason: str) -> None:
    await stub.AddSuppression(pb.AddSuppressionRequest(address=address, reason=reason))


async def test_what_is_no_address_or_not_listed_is_said(
    store: JetStream, peer: SmtpPeer, tmp_path: Path
) -> None:
    async with queue_calls(delivery_to(store, peer, tmp_path), tmp_path) as stub:
        for address in ("", "you", "you@", "a@b@c", "postmaster"):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await add(stub, address, reason="")
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.RemoveSuppression(pb.RemoveSuppressionRequest(address=GONE))
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
