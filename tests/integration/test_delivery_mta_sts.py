"""MTA-STS from the TXT record to the delivered mail: policies kept, shared, renewed and obeyed.

Real: the DNS server, the policy host, the mail exchanges, nats-server. The exchanges of `dest.test`
are mx1 at 127.0.0.1 and mx2 at 127.0.0.2, on one port.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gatepost.queue.v1.event_pb2 import TlsSession
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.cli.queue import told
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
from tests.support.nats_server import NatsServer
from tests.support.policy_host import PolicyHost, policy_text, response
from tests.support.smtp_peer import Raw, SmtpPeer
from tests.support.tls_chains import Issued

HOST = f"mta-sts.{DESTINATION}"
RECORD = (f"_mta-sts.{DESTINATION}", "TXT")
LOOPBACK = "127.0.0.0/8"
MX1, MX2 = f"mx1.{DESTINATION}", f"mx2.{DESTINATION}"


@pytest.fixture(scope="module")
def root() -> Issued:
    return Issued.root("root")


@pytest.fixture(scope="module")
def ca_file(root: Issued, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_bytes(root.pem)
    return file


@pytest.fixture
async def host(root: Issued) -> AsyncIterator[PolicyHost]:
    async with PolicyHost(root.issue(HOST).server_context()) as host:
        yield host


@pytest.fixture
def dns_server() -> Iterator[DnsServer]:
    records = {
        (DESTINATION, "MX"): [f"10 {MX1}", f"20 {MX2}"],
        (MX1, "A"): ["127.0.0.1"],
        (MX2, "A"): ["127.0.0.2"],
        (HOST, "A"): ["127.0.0.1"],
    }
    with DnsServer(records) as server:
        yield server


@dataclass
class World:
    """A destination with two exchanges, and a delivery service that sends there."""

    store: JetStream
    dns: DnsServer
    host: PolicyHost
    first: SmtpPeer
    second: SmtpPeer
    config: dict[str, Any]

    async def send(self, *states: State, record: QueuedMessage | None = None) -> list[TlsSession]:
        """Send a mail; what is told of TLS once the queue holds these states."""
        record = record or mail(RECIPIENT)
        resolver = DnsResolver(DnsOptions(servers=(self.dns.address,)))
        async with Delivery(
            self.store,
            self.config,
            resolver=resolver,
            mx_port=self.first.port,
            policy_port=self.host.port,
        ):
            await submit(self.store, record)
            self.waiting = await wait_queued(self.store, *states)
        await resolver.close()
        happened = await events(self.store, record.message_id)
        self.told = [line for each in happened for line in told(each)]
        return [session for each in happened for session in each.attempt.tls_sessions]

    @property
    def mails(self) -> tuple[int, int]:
        """How many each exchange took."""
        return len(self.first.mails), len(self.second.mails)

    @property
    def reason(self) -> str:
        """Why the mail waits."""
        return self.waiting[0].recipients[0].last_status.reply.text


Build = Callable[..., Any]


@pytest.fixture
async def world(
    store: JetStream, dns_server: DnsServer, host: PolicyHost, root: Issued, ca_file: Path
) -> AsyncIterator[Build]:
    async with AsyncExitStack() as stack:

        async def build(
            policy: str = "",
            *,
            first: dict[str, Any] | None = None,
            second: dict[str, Any] | None = None,
            **delivery: Any,
        ) -> World:
            if policy:
                dns_server.records[RECORD] = ["v=STSv1; id=1;"]
                host.answer = response(policy)
            given = {"tls": root.issue(MX1).server_context()} if first is None else first
            one = await stack.enter_async_context(SmtpPeer(**given))
            given = {"tls": root.issue(MX2).server_context()} if second is None else second
            two = SmtpPeer(**given, host="127.0.0.2")
            two.port = one.port
            await stack.enter_async_context(two)
            values = {"allowed_networks": [LOOPBACK], "extra_ca_file": str(ca_file), **delivery}
            return World(store, dns_server, host, one, two, {"delivery": values})

        yield build


def counted(policy: str, result: str) -> float:
    labels = {"policy": policy, "result": result}
    return REGISTRY.get_sample_value("gatepost_delivery_tls_policy_sessions_total", labels) or 0.0


def results(sessions: list[TlsSession]) -> list[tuple[str, str, str]]:
    return [(session.policy, session.mode, session.result) for session in sessions]


async def test_a_policy_that_is_met(world: Build) -> None:
    made = await world(policy_text("enforce", MX1))
    before = counted("sts", "success")
    sessions = await made.send()
    assert results(sessions) == [("sts", "enforce", "success")]
    assert sessions[0].host.startswith(MX1)
    assert made.first.mails[0].tls
    assert counted("sts", "success") == before + 1
    assert any("over TLSv1" in line for line in made.told)
    assert any(line.endswith("policy sts (enforce), success") for line in made.told)


BAD_CERTIFICATES = {
    "expired": (lambda root: root.issue(MX1, expired=True), "certificate-expired"),
    "early": (lambda root: root.issue(MX1, early=True), "certificate-expired"),
    "other name": (lambda root: root.issue("mx.evil.test"), "certificate-host-mismatch"),
    "no name": (lambda root: root.issue(), "certificate-host-mismatch"),
    "unknown": (lambda _: Issued.root("evil").issue(MX1), "certificate-not-trusted"),
    "self-signed": (lambda _: Issued.root(MX1), "certificate-not-trusted"),
}


@pytest.mark.parametrize(("issue", "result"), BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
@pytest.mark.parametrize("mode", ["enforce", "testing"])
async def test_an_exchange_that_does_not_prove_who_it_is(
    world: Build, root: Issued, issue: Callable[[Issued], Issued], result: str, mode: str
) -> None:
    first = {"tls": issue(root).server_context()}
    made = await world(policy_text(mode, f"*.{DESTINATION}"), first=first)
    before = counted("sts", result)
    sessions = await made.send()
    assert counted("sts", result) == before + 1
    if mode == "enforce":
        assert results(sessions) == [("sts", mode, result), ("sts", mode, "success")]
        assert made.mails == (0, 1)
        assert not any(said.startswith("MAIL") for said in made.first.commands)
    else:
        assert results(sessions) == [("sts", mode, result)]
        assert made.mails == (1, 0)
        assert made.first.mails[0].tls
    assert sessions[0].detail


STRIPPED: dict[str, dict[str, Any]] = {
    "not offered": {},
    "refused": {"extensions": ["STARTTLS"], "starttls": "454 4.7.0 not now"},
    "no TLS": {"extensions": ["STARTTLS"], "starttls": "220 go"},
    "injected": {"extensions": ["STARTTLS"], "starttls": Raw(b"220 go\r\n250 injected\r\n")},
}


@pytest.mark.parametrize("scripts", STRIPPED.values(), ids=STRIPPED)
async def test_stripped_encryption_waits_and_says_why(
    world: Build, scripts: dict[str, Any]
) -> None:
    made = await world(policy_text("enforce", f"*.{DESTINATION}"), first=scripts, second=scripts)
    sessions = await made.send(State.DEFERRED)
    assert made.mails == (0, 0)
    for peer in (made.first, made.second):
        assert not any(said.startswith("MAIL") for said in peer.commands)
    assert made.waiting[0].recipients[0].last_status.reply.code == 451
    if scripts is STRIPPED["injected"]:
        # Not a lack of encryption: something else is wrong there.
        assert "before the TLS handshake" in made.reason
    else:
        assert made.reason.startswith(f"MTA-STS of {DESTINATION}: ")
        assert len(sessions) == 2
        assert {session.result for session in sessions} <= {
            "starttls-not-supported",
            "validation-failure",
        }


async def test_exchanges_outside_the_policy_are_passed_over(world: Build) -> None:
    made = await world(policy_text("enforce", MX2))
    before = counted("sts", "validation-failure")
    sessions = await made.send()
    assert made.mails == (0, 1)
    assert made.first.connections == 0
    assert results(sessions) == [
        ("sts", "enforce", "validation-failure"),
        ("sts", "enforce", "success"),
    ]
    assert counted("sts", "validation-failure") == before + 1


async def test_with_no_exchange_in_the_policy_the_mail_waits(world: Build) -> None:
    made = await world(policy_text("enforce", "elsewhere.test"))
    await made.send(State.DEFERRED)
    assert made.mails == (0, 0)
    assert made.first.connections == made.second.connections == 0
    assert MX2 in made.reason
    assert "does not name" in made.reason


async def test_a_tested_policy_lets_mail_pass_in_clear(world: Build) -> None:
    made = await world(policy_text("testing", "*.dest.test"), first={})
    sessions = await made.send()
    assert results(sessions) == [("sts", "testing", "starttls-not-supported")]
    assert made.mails == (1, 0)


async def test_a_tested_policy_does_not_weaken_what_the_operator_demands(world: Build) -> None:
    made = await world(policy_text("testing", "*.dest.test"), first={}, require_tls=True)
    sessions = await made.send()
    assert results(sessions)[0] == ("sts", "testing", "starttls-not-supported")
    assert made.mails == (0, 1)


async def test_a_policy_that_cannot_be_fetched_demands_nothing(world: Build) -> None:
    made = await world("no policy at all", first={})
    before = counted("sts", "sts-policy-invalid")
    sessions = await made.send()
    assert results(sessions) == [("sts", "", "sts-policy-invalid")]
    assert counted("sts", "sts-policy-invalid") == before + 1
    assert made.mails == (1, 0)


async def test_a_policy_of_nothing_demands_nothing(world: Build) -> None:
    made = await world(policy_text("none"), first={})
    sessions = await made.send()
    assert results(sessions) == [("no-policy-found", "", "starttls-not-supported")]


async def test_switched_off_nobody_is_asked(world: Build) -> None:
    made = await world(policy_text("enforce", "elsewhere.test"), mta_sts=False)
    sessions = await made.send()
    assert results(sessions) == [("no-policy-found", "", "success")]
    assert not made.host.connections
    assert RECORD[0] not in {query.name for query in made.dns.queries}


async def test_sessions_are_used_again_and_counted_once(
    world: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.delivery.smtp.pool.IDLE_S", 60.0)
    made = await world(policy_text("enforce", MX1), concurrency={"initial": 1, "limit": 1})
    before = counted("sts", "success")
    records = [mail(RECIPIENT) for _ in range(3)]
    resolver = DnsResolver(DnsOptions(servers=(made.dns.address,)))
    async with Delivery(
        made.store,
        made.config,
        resolver=resolver,
        mx_port=made.first.port,
        policy_port=made.host.port,
    ):
        for number, record in enumerate(records, start=1):
            await submit(made.store, record)
            await made.first.wait_mails(number)
            await wait_queued(made.store)
    await resolver.close()
    assert made.first.connections == 1
    assert counted("sts", "success") == before + 1
    for record in records:
        (happened,) = await events(made.store, record.message_id)
        assert results(list(happened.attempt.tls_sessions)) == [("sts", "enforce", "success")]


async def test_a_session_for_one_demand_does_not_serve_another(world: Build, root: Issued) -> None:
    """The same host takes mail for a domain with a policy and for one without."""
    evil = Issued.root("evil").issue(MX1).server_context()
    made = await world(policy_text("enforce", MX1), first={"tls": evil})
    made.dns.records[("free.test", "MX")] = [f"10 {MX1}"]
    resolver = DnsResolver(DnsOptions(servers=(made.dns.address,)))
    async with Delivery(
        made.store,
        made.config,
        resolver=resolver,
        mx_port=made.first.port,
        policy_port=made.host.port,
    ):
        await submit(made.store, mail("you@free.test"))
        await made.first.wait_mails(1)
        await wait_queued(made.store)
        await submit(made.store, mail(RECIPIENT))
        await wait_queued(made.store, State.DEFERRED)
    await resolver.close()
    assert made.mails == (1, 0)


async def test_policies_that_cannot_be_read_may_be_there(
    world: Build, nats_server: NatsServer
) -> None:
    made = await world(policy_text("enforce", MX1))
    await made.store.ask("$JS.API.STREAM.DELETE.KV_mta_sts", {})
    await made.send(State.DEFERRED)
    assert made.mails == (0, 0)
    (waiting,) = made.waiting
    assert waiting.wait_reason.startswith("the stored MTA-STS policies cannot be read just now")
    assert waiting.attempts == 0
