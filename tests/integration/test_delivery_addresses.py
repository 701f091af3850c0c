"""Which addresses of next hops are used, which of ours, and how fast: settings of sessions."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from tests.support.delivery import Delivery, mail, submit, wait_queued
from tests.support.resolver import FakeResolver
from tests.support.smtp_peer import SmtpPeer

FAR = "far.test"
BOTH = {
    (FAR, "MX"): ["10 mx.far.test"],
    ("mx.far.test", "A"): ["127.0.0.1"],
    ("mx.far.test", "AAAA"): ["::1"],
}
HOP = {
    ("hop.test", "A"): ["127.0.0.1"],
    ("hop.test", "AAAA"): ["::1"],
}


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with SmtpPeer() as peer:
        yield peer


@pytest.fixture
async def peer6(peer: SmtpPeer) -> AsyncIterator[SmtpPeer]:
    """The same port at the other loopback address."""
    other = SmtpPeer(host="::1")
    other.port = peer.port
    async with other:
        yield other


def delivery_to(store: JetStream, peer: SmtpPeer, **settings: Any) -> Delivery:
    """FAR has a mail exchange, relay.test a next hop, with addresses of both families."""
    config = {
        "domains": {"relay": {"relay.test": f"smtp:hop.test:{peer.port}"}},
        "delivery": {"allowed_networks": ["127.0.0.0/8", "::1/128"], **settings},
    }
    return Delivery(store, config, resolver=FakeResolver(BOTH | HOP), mx_port=peer.port)


@pytest.mark.parametrize("recipient", [f"you@{FAR}", "you@relay.test"], ids=["mx", "relay"])
@pytest.mark.parametrize(
    ("family", "used"),
    [("ipv4", 4), ("ipv6", 6), ("prefer_ipv4", 4), ("prefer_ipv6", 6)],
)
async def test_the_family_that_is_wanted_is_used(
    store: JetStream, peer: SmtpPeer, peer6: SmtpPeer, family: str, used: int, recipient: str
) -> None:
    async with delivery_to(store, peer, address_family=family):
        await submit(store, mail(recipient))
        await wait_queued(store)
    assert [len(peer.mails), len(peer6.mails)] == ([1, 0] if used == 4 else [0, 1])


async def test_what_is_preferred_and_does_not_answer_is_passed_over(
    store: JetStream, peer: SmtpPeer
) -> None:
    async with delivery_to(store, peer, address_family="prefer_ipv6"):
        await submit(store, mail(f"you@{FAR}"))
        await wait_queued(store)
    assert len(peer.mails) == 1


async def test_a_next_hop_of_another_family_alone_makes_mail_wait(
    store: JetStream, peer: SmtpPeer
) -> None:
    resolver = FakeResolver({key: value for key, value in BOTH.items() if key[1] != "AAAA"})
    config = {"delivery": {"address_family": "ipv6", "allowed_networks": ["127.0.0.0/8"]}}
    async with Delivery(store, config, resolver=resolver, mx_port=peer.port):
        await submit(store, mail(f"you@{FAR}"))
        (waiting,) = await wait_queued(store, State.DEFERRED)
    assert "delivery.address_family" in waiting.wait_reason
    assert not peer.connections


async def test_sessions_come_from_the_address_that_is_set(
    store: JetStream, peer: SmtpPeer, peer6: SmtpPeer
) -> None:
    own = {"ipv4": "127.0.0.9", "ipv6": "::1"}
    async with delivery_to(store, peer, address_family="prefer_ipv4", source_address=own):
        await submit(store, mail(f"you@{FAR}"), mail("you@relay.test"))
        await wait_queued(store)
    assert set(peer.clients) == {"127.0.0.9"}


async def test_an_address_that_is_not_ours_makes_mail_wait(
    store: JetStream, peer: SmtpPeer
) -> None:
    own = {"ipv4": "192.0.2.1"}
    async with delivery_to(store, peer, address_family="ipv4", source_address=own):
        await submit(store, mail(f"you@{FAR}"))
        (waiting,) = await wait_queued(store, State.DEFERRED)
    assert "cannot connect" in waiting.wait_reason
    assert not peer.connections


async def test_a_rate_spreads_mail_and_loses_none(store: JetStream, peer: SmtpPeer) -> None:
    rate = {"messages": 1, "period": "1s", "exceptions": {FAR: 0}}
    async with delivery_to(store, peer, rate=rate):
        began = time.monotonic()
        await submit(store, *(mail("you@relay.test") for _ in range(6)))
        await peer.wait_mails(6)
        took = time.monotonic() - began
        await asyncio.wait_for(submit(store, *(mail(f"you@{FAR}") for _ in range(6))), 30)
        await peer.wait_mails(12, seconds=30)
        await wait_queued(store)
    # Six a second apart, but for the first that may go ahead of its time.
    assert took > 2
