"""What goes wrong around delivery, with real servers and the ledger: next hops, DNS, storage."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.dns import DnsOptions, DnsResolver
from services.common.jetstream import JetStream, NatsSettings, Outgoing, StoreError
from services.common.queue.subjects import CONTENT_STREAM, State
from services.common.topology import TopologySettings, ensure
from services.delivery.smtp.session import Patience
from tests.support.booked import booked, submit_all
from tests.support.delivery import (
    Delivery,
    contents,
    local_and_far,
    mail,
    submit,
    until,
    wait_queued,
)
from tests.support.dns_server import DnsServer
from tests.support.ledger import Ledger
from tests.support.nats_server import NatsServer
from tests.support.sink import Sink
from tests.support.smtp_peer import Drip, SmtpPeer

FAR = "far.test"
EAGER: dict[str, Any] = {"retry": {"interval": "1s"}, "backoff": {"initial": "1s", "limit": "1s"}}

# --- next hops ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        ("-r", "EHLO"),
        ("-r", "MAIL"),
        ("-r", "RCPT"),
        ("-r", "DATA"),
        ("-r", "."),
        ("-q", "CONNECT"),
        ("-q", "EHLO"),
        ("-q", "RCPT"),
        ("-q", "DATA"),
        ("-q", "."),
    ],
    ids=" ".join,
)
async def test_a_next_hop_that_misbehaves_gets_every_mail_once_it_is_mended(
    store: JetStream, fault: tuple[str, str]
) -> None:
    ledger, sink = Ledger(), Sink(*fault)
    sink.start(wait=fault[1] != "CONNECT")
    try:
        config: dict[str, Any] = {
            "domains": {"relay": {FAR: f"smtp:127.0.0.1:{sink.port}"}},
            "delivery": EAGER,
        }
        async with Delivery(store, config):
            records = booked(ledger, [f"you@{FAR}"] * 3)
            await submit_all(store, records)
            await wait_queued(store, *[State.DEFERRED] * 3)
            sink.stop()
            sink.mend()
            sink.start()
            await wait_queued(store, seconds=40)
        for content in sink.mails():
            ledger.was_delivered(content, f"you@{FAR}")
    finally:
        sink.close()
    # This one keeps a mail and then says no, or nothing, after the dot.
    allowed = 3 * len(records) if fault[1] == "." else 0
    assert ledger.problems(duplicates_allowed=allowed) == []
    assert await contents(store) == []


@pytest.fixture
def blackhole() -> Iterator[int]:
    """A port of loopback where the kernel does not answer: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


async def test_a_next_hop_that_swallows_everything_is_passed_over(
    store: JetStream, blackhole: int
) -> None:
    async with SmtpPeer() as peer:
        hosts = {"host": "127.0.0.1", "port": blackhole}
        alternatives = [{"host": "127.0.0.1", "port": peer.port}]
        config = {"delivery": {"smarthost": hosts | {"alternatives": alternatives}, **EAGER}}
        async with Delivery(store, config, patience=Patience(connect=2, quit=0.5)):
            await submit(store, mail(f"you@{FAR}"))
            await peer.wait_mails(1)
            await wait_queued(store)


async def test_where_there_is_no_other_the_mail_waits(store: JetStream, blackhole: int) -> None:
    config = {"domains": {"relay": {FAR: f"smtp:127.0.0.1:{blackhole}"}}}
    async with Delivery(store, config, patience=Patience(connect=2, quit=0.5)):
        await submit(store, mail(f"you@{FAR}"))
        (waiting,) = await wait_queued(store, State.DEFERRED)
    assert "no answer to the connection" in waiting.wait_reason


# --- DNS ----------------------------------------------------------------------------------------

ZONE = {
    (FAR, "MX"): ["10 mx.far.test"],
    ("mx.far.test", "A"): ["127.0.0.1"],
}
NULL_MX = {(FAR, "MX"): ["0 ."]}
LOOP = {(FAR, "CNAME"): ["loop.test"], ("loop.test", "CNAME"): [FAR]}
NO_ANSWER = {"timeout", "wrong_id"}
"""Faults that are waited out."""


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        ({}, "delivered"),
        ({"truncated": {FAR}}, "delivered"),
        ({"slow": {FAR: 0.3}}, "delivered"),
        ({"forged": {FAR}}, "delivered"),
        ({"records": {("far.test", "A"): ["127.0.0.1"]}}, "delivered"),
        ({"timeout": {FAR}}, "4.4.3"),
        ({"servfail": {FAR}}, "4.4.3"),
        ({"servfail": {"mx.far.test"}}, "4.4.3"),
        ({"garbage": {FAR}}, "4.4.3"),
        ({"wrong_id": {FAR}}, "4.4.3"),
        ({"truncated": {FAR}, "no_tcp": {FAR}}, "4.4.3"),
        ({"records": LOOP}, "4.4.3"),
        ({"nxdomain": {FAR}}, "5.1.2"),
        ({"records": NULL_MX}, "5.1.10"),
        ({"nxdomain": {"mx.far.test"}}, "5.4.4"),
        ({"empty": {FAR}}, "5.4.4"),
        ({"empty": {"mx.far.test"}}, "5.4.4"),
    ],
    ids=repr,
)
async def test_doubt_in_the_dns_makes_mail_wait_and_a_definite_no_returns_it(
    store: JetStream, tmp_path: Path, faults: dict[str, Any], outcome: str
) -> None:
    records = faults.pop("records", ZONE)
    async with SmtpPeer() as peer:
        config = local_and_far(peer, tmp_path) | {
            "delivery": {"allowed_networks": ["127.0.0.0/8"], "mta_sts": False}
        }
        config["domains"].pop("relay")
        with DnsServer(records, **faults) as dns:
            patience = (0.7, 2.0) if NO_ANSWER & set(faults) else (15.0, 30.0)
            options = DnsOptions(
                servers=(dns.address,), attempt_timeout=patience[0], deadline=patience[1]
            )
            resolver = DnsResolver(options)
            async with Delivery(store, config, resolver=resolver, mx_port=peer.port):
                await submit(store, mail(f"them@{FAR}", sender="you@example.test"))
                if outcome.startswith("4"):
                    (waiting,) = await wait_queued(store, State.DEFERRED, seconds=30)
                    assert outcome in waiting.wait_reason
                else:
                    await wait_queued(store, seconds=30)
            await resolver.close()
        assert len(peer.mails) == (1 if outcome == "delivered" else 0)
    reports = list((tmp_path / "mail").rglob("new/*"))
    assert len(reports) == (1 if outcome.startswith("5") else 0)
    for report in reports:
        assert f"Status: {outcome}\r\n".encode() in report.read_bytes()


# --- storage ------------------------------------------------------------------------------------


async def test_with_a_full_storage_delivery_goes_on_and_what_waits_is_not_lost(
    tmp_path: Path,
) -> None:
    nats = NatsServer(tmp_path / "nats", storage="8MB")
    nats.start()
    store = JetStream(NatsSettings(urls=[nats.url], client_name="test"))
    await store.start(wait_s=10)
    ledger = Ledger()
    try:
        await ensure(store, TopologySettings(events_max_octets=1 << 20))
        async with SmtpPeer() as free, SmtpPeer(rcpt="451 4.3.0 not now") as busy:
            config: dict[str, Any] = local_and_far(busy, tmp_path)
            config["domains"]["relay"]["free.test"] = f"smtp:127.0.0.1:{free.port}"
            config["delivery"] = EAGER
            await submit(store, *booked(ledger, ["a@free.test", "b@free.test", f"you@{FAR}"]))
            await fill(store)
            async with Delivery(store, config):
                for taken in await free.wait_mails(2, seconds=20):
                    ledger.was_delivered(taken.content, taken.rcpt_to[0])
                # It was tried, and there is no room to write that down: it stays what it is.
                await until(lambda: any("RCPT" in each for each in busy.commands))
                await wait_queued(store, State.READY)
                busy.script(rcpt="250 2.1.5 ok")
                await store.purge(CONTENT_STREAM, "content.filler-1.*")
                await wait_queued(store, seconds=40)
            for taken in busy.mails:
                ledger.was_delivered(taken.content, taken.rcpt_to[0])
        assert ledger.problems(duplicates_allowed=0) == []
        assert await contents(store) == []
    finally:
        await store.close()
        nats.close()


async def fill(store: JetStream) -> None:
    """Store until nothing more goes in, not even something small."""
    number = 0
    for octets in (500_000, 50_000, 5_000, 500):
        with contextlib.suppress(StoreError):
            while True:
                number += 1
                await store.publish(Outgoing(f"content.filler-1.{number}", bytes(octets)))


async def test_what_is_in_hand_when_the_server_crashes_is_delivered_once(tmp_path: Path) -> None:
    """The server forgets whom it gave a record, and gives it again at once."""
    nats = NatsServer(tmp_path / "nats")
    nats.start()
    store = JetStream(NatsSettings(urls=[nats.url], client_name="test"))
    await store.start(wait_s=10)
    try:
        await ensure(store, TopologySettings())
        async with SmtpPeer(dot=Drip("250 2.0.0 taken", 0.4)) as peer:
            config = {"domains": {"relay": {FAR: f"smtp:127.0.0.1:{peer.port}"}}}
            async with Delivery(store, config):
                await submit(store, *(mail(f"you@{FAR}") for _ in range(4)))
                await until(lambda: sum("DATA" in each for each in peer.commands) == 4)
                nats.kill()
                await until(lambda: not store.connected, seconds=20)
                nats.start()
                await until(lambda: store.connected, seconds=20)
                await peer.wait_mails(4, seconds=30)
                await wait_queued(store, seconds=30)
            assert len(peer.mails) == 4
    finally:
        await store.close()
        nats.close()
