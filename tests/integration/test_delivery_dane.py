"""DANE from the signed zone to the delivered mail, with a real DNS server and real handshakes.

The exchanges of `dest.test` are mx1 at 127.0.0.1 and mx2 at 127.0.0.2, on one port. The DNS server
says of everything that it is authentic, unless a test takes that back.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gatepost.queue.v1.event_pb2 import TlsSession
from services.common.dns import DnsOptions, DnsResolver
from services.common.jetstream import JetStream
from services.common.queue.subjects import State
from tests.support.delivery import (
    DESTINATION,
    RECIPIENT,
    Delivery,
    events,
    mail,
    submit,
    wait_queued,
)
from tests.support.dns_server import DnsServer
from tests.support.smtp_peer import Raw, SmtpPeer
from tests.support.tls_chains import Issued, tlsa

LOOPBACK = "127.0.0.0/8"
MX1, MX2 = f"mx1.{DESTINATION}", f"mx2.{DESTINATION}"
ROOT = Issued.root("root")
MIDDLE = ROOT.authority("middle")
LEAF = MIDDLE.issue(MX1)
EVIL = Issued.root("evil")


@dataclass
class World:
    """A destination with two exchanges, and a delivery service that sends there."""

    store: JetStream
    dns: DnsServer
    first: SmtpPeer
    second: SmtpPeer
    delivery: dict[str, Any] = field(default_factory=dict)
    validating: bool = True

    @property
    def records(self) -> tuple[str, str]:
        """Where the TLSA records of the two exchanges are."""
        return f"_{self.first.port}._tcp.{MX1}", f"_{self.first.port}._tcp.{MX2}"

    def publish(self, *records: str, second: tuple[str, ...] = ()) -> None:
        """Put TLSA records of the exchanges into the zone."""
        for name, values in zip(self.records, (records, second), strict=True):
            if values:
                self.dns.records[name, "TLSA"] = list(values)
        self.dns.authentic |= {DESTINATION, MX1, MX2, *self.records}

    async def send(self, *states: State) -> list[TlsSession]:
        """Send a mail; what is told of TLS once the queue holds these states."""
        record = mail(RECIPIENT)
        resolver = DnsResolver(DnsOptions(servers=(self.dns.address,)))
        config = {
            "dns": {"validating": self.validating},
            "delivery": {"allowed_networks": [LOOPBACK], **self.delivery},
        }
        async with Delivery(self.store, config, resolver=resolver, mx_port=self.first.port):
            await submit(self.store, record)
            self.waiting = await wait_queued(self.store, *states)
        await resolver.close()
        happened = await events(self.store, record.message_id)
        return [session for each in happened for session in each.attempt.tls_sessions]

    @property
    def mails(self) -> tuple[int, int]:
        """How many each exchange took."""
        return len(self.first.mails), len(self.second.mails)

    @property
    def reason(self) -> str:
        """Why the mail waits."""
        return self.waiting[0].recipients[0].last_status.reply.text


Build = Callable[..., Awaitable[World]]


@pytest.fixture
async def world(store: JetStream) -> AsyncIterator[Build]:
    async with AsyncExitStack() as stack:
        records = {
            (DESTINATION, "MX"): [f"10 {MX1}", f"20 {MX2}"],
            (MX1, "A"): ["127.0.0.1"],
            (MX2, "A"): ["127.0.0.2"],
        }
        server = stack.enter_context(DnsServer(records))

        async def build(
            tls: ssl.SSLContext | None = None,
            *,
            first: dict[str, Any] | None = None,
            second: dict[str, Any] | None = None,
            **delivery: Any,
        ) -> World:
            shown = tls or LEAF.server_context(MIDDLE, ROOT)
            one = await stack.enter_async_context(
                SmtpPeer(**({"tls": shown} if first is None else first))
            )
            context = MIDDLE.issue(MX2).server_context(MIDDLE)
            two = SmtpPeer(**({"tls": context} if second is None else second), host="127.0.0.2")
            two.port = one.port
            await stack.enter_async_context(two)
            return World(store, server, one, two, delivery)

        yield build


def counted(result: str) -> float:
    labels = {"policy": "tlsa", "result": result}
    return REGISTRY.get_sample_value("gatepost_delivery_tls_policy_sessions_total", labels) or 0.0


def results(sessions: list[TlsSession]) -> list[tuple[str, str]]:
    return [(session.policy, session.result) for session in sessions]


@pytest.mark.parametrize(
    ("usage", "selector", "matching", "named"),
    [
        (3, 1, 1, LEAF),
        (3, 0, 2, LEAF),
        (3, 1, 0, LEAF),
        (2, 0, 1, MIDDLE),
        (2, 1, 2, ROOT),
        (2, 0, 0, ROOT),
    ],
    ids=["3 1 1", "3 0 2", "3 1 0", "2 0 1", "2 1 2", "2 0 0"],
)
async def test_the_named_certificate_is_shown(
    world: Build, usage: int, selector: int, matching: int, named: Issued
) -> None:
    made = await world()
    made.publish(tlsa(usage, selector, matching, named))
    before = counted("success")
    assert results(await made.send()) == [("tlsa", "success")]
    assert made.first.mails[0].tls
    assert counted("success") == before + 1


@pytest.mark.parametrize("showing", [[MIDDLE], [MIDDLE, ROOT], []], ids=["1", "2", "0"])
async def test_the_chain_is_seen_as_it_is_shown(world: Build, showing: list[Issued]) -> None:
    made = await world(LEAF.server_context(*showing), second={})
    made.publish(tlsa(2, 0, 1, MIDDLE), second=(tlsa(3, 1, 1, EVIL),))
    states = [] if showing else [State.DEFERRED]
    sessions = await made.send(*states)
    expected = "success" if showing else "certificate-not-trusted"
    assert results(sessions)[0] == ("tlsa", expected)


async def test_dates_and_names_do_not_matter_to_a_key(world: Build) -> None:
    leaf = EVIL.issue("else.test", expired=True)
    made = await world(leaf.server_context())
    made.publish(tlsa(3, 1, 1, leaf))
    assert results(await made.send()) == [("tlsa", "success")]


WRONG: dict[str, tuple[Issued, str, str]] = {
    "another key": (LEAF, tlsa(3, 1, 1, EVIL), "certificate-not-trusted"),
    "another authority": (LEAF, tlsa(2, 0, 1, EVIL), "certificate-not-trusted"),
    "another name": (
        MIDDLE.issue("else.test"),
        tlsa(2, 0, 1, MIDDLE),
        "certificate-host-mismatch",
    ),
    "expired": (MIDDLE.issue(MX1, expired=True), tlsa(2, 0, 1, MIDDLE), "certificate-expired"),
}


@pytest.mark.parametrize(("leaf", "record", "result"), WRONG.values(), ids=WRONG)
async def test_another_certificate_takes_no_mail(
    world: Build, leaf: Issued, record: str, result: str
) -> None:
    made = await world(leaf.server_context(MIDDLE))
    made.publish(record, second=(tlsa(2, 0, 1, MIDDLE),))
    before = counted(result)
    assert results(await made.send()) == [("tlsa", result), ("tlsa", "success")]
    assert made.mails == (0, 1)
    assert not any(said.startswith("MAIL") for said in made.first.commands)
    assert counted(result) == before + 1


async def test_the_domain_is_a_name_for_its_exchanges(world: Build) -> None:
    made = await world(MIDDLE.issue(DESTINATION).server_context(MIDDLE))
    made.publish(tlsa(2, 0, 1, MIDDLE))
    assert results(await made.send()) == [("tlsa", "success")]


async def test_one_of_several_records_is_enough(world: Build) -> None:
    made = await world()
    made.publish(tlsa(3, 1, 1, EVIL), tlsa(3, 1, 1, LEAF), "1 1 1 " + "00" * 32)
    assert results(await made.send()) == [("tlsa", "success")]


STRIPPED: dict[str, dict[str, Any]] = {
    "not offered": {},
    "refused": {"extensions": ["STARTTLS"], "starttls": "454 4.7.0 not now"},
    "no TLS": {"extensions": ["STARTTLS"], "starttls": "220 go"},
    "injected": {"extensions": ["STARTTLS"], "starttls": Raw(b"220 go\r\n250 injected\r\n")},
}


@pytest.mark.parametrize("usable", [True, False], ids=["named", "anybody"])
@pytest.mark.parametrize("scripts", STRIPPED.values(), ids=STRIPPED)
async def test_stripped_encryption_waits(
    world: Build, scripts: dict[str, Any], usable: bool
) -> None:
    made = await world(first=scripts, second=scripts)
    record = tlsa(3, 1, 1, LEAF) if usable else "0 1 1 " + "00" * 32
    made.publish(record, second=(record,))
    await made.send(State.DEFERRED)
    assert made.mails == (0, 0)
    for peer in (made.first, made.second):
        assert not any(said.startswith("MAIL") for said in peer.commands)
    if scripts is not STRIPPED["injected"]:
        assert made.reason.startswith("DANE: ")


async def test_records_that_nobody_can_use_demand_encryption_alone(world: Build) -> None:
    made = await world(EVIL.server_context())
    made.publish("1 1 1 " + "00" * 32)
    before = counted("tlsa-invalid")
    assert results(await made.send()) == [("tlsa", "tlsa-invalid")]
    assert made.first.mails[0].tls
    assert counted("tlsa-invalid") == before + 1


async def test_records_that_cannot_be_looked_up_pass_the_host_over(world: Build) -> None:
    """A bogus signature is SERVFAIL from a resolver that validates."""
    made = await world()
    made.publish(second=(tlsa(2, 0, 1, MIDDLE),))
    made.dns.servfail.add(made.records[0])
    assert results(await made.send()) == [("tlsa", "dnssec-invalid"), ("tlsa", "success")]
    assert made.mails == (0, 1)
    assert made.first.connections == 0


async def test_records_of_all_hosts_in_doubt_make_mail_wait(world: Build) -> None:
    made = await world()
    made.publish()
    made.dns.servfail |= set(made.records)
    await made.send(State.DEFERRED)
    assert made.mails == (0, 0)
    reply = made.waiting[0].recipients[0].last_status.reply
    assert (reply.code, reply.enhanced_code) == (451, "4.4.3")
    assert reply.text.startswith("DANE: ")


@pytest.mark.parametrize("unsigned", [0, 1, 2], ids=["mx", "a", "tlsa"])
async def test_what_was_not_validated_demands_nothing(world: Build, unsigned: int) -> None:
    made = await world(first={})
    made.publish(tlsa(3, 1, 1, LEAF))
    made.dns.authentic.discard((DESTINATION, MX1, made.records[0])[unsigned])
    assert results(await made.send()) == [("no-policy-found", "starttls-not-supported")]
    assert made.mails == (1, 0)


async def test_no_word_is_taken_of_a_resolver_that_nobody_trusts(world: Build) -> None:
    made = await world(first={})
    made.publish(tlsa(3, 1, 1, LEAF))
    made.validating = False
    assert results(await made.send()) == [("no-policy-found", "starttls-not-supported")]
    assert not [query for query in made.dns.queries if query.rdtype == "TLSA"]


async def test_it_can_be_switched_off(world: Build) -> None:
    made = await world(first={}, dane=False)
    made.publish(tlsa(3, 1, 1, LEAF))
    assert results(await made.send()) == [("no-policy-found", "starttls-not-supported")]


async def test_what_the_operator_demands_holds_beside_it(world: Build) -> None:
    """Encryption at least, for a host without records."""
    made = await world(first={}, require_tls=True)
    made.publish(second=(tlsa(2, 0, 1, MIDDLE),))
    sessions = await made.send()
    assert results(sessions) == [
        ("no-policy-found", "starttls-not-supported"),
        ("tlsa", "success"),
    ]
    assert made.mails == (0, 1)


async def test_the_name_of_the_records_is_asked_for(world: Build) -> None:
    """RFC 7672 §8.1: a host with many certificates must know which one is meant."""
    asked: list[str | None] = []
    context = LEAF.server_context(MIDDLE)

    def noted(_connection: object, name: str | None, _context: object) -> None:
        asked.append(name)

    context.sni_callback = noted
    made = await world(context)
    made.publish(tlsa(3, 1, 1, LEAF))
    await made.send()
    assert asked == [MX1]
