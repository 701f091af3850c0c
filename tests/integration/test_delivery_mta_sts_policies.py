"""MTA-STS policies: fetched, kept, shared by replicas, renewed, outlived and taken back.

Real: the DNS server, the policy host, nats-server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from services.common.dns import DnsOptions, DnsResolver
from services.common.jetstream import JetStream, StoreError
from services.delivery.smtp.tls_context import authenticating
from services.delivery.tls.https import Https
from services.delivery.tls.report import TlsResult
from services.delivery.tls.sts import NO_POLICY, PAUSE_S, MtaSts
from services.delivery.tls.sts_fetch import PolicyHosts
from services.delivery.tls.sts_policy import Mode
from services.delivery.tls.sts_store import REMEMBER_S, StsStore
from tests.support.delivery import DESTINATION
from tests.support.dns_server import DnsServer
from tests.support.policy_host import PolicyHost, policy_text, response
from tests.support.tls_chains import Issued

HOST = f"mta-sts.{DESTINATION}"
RECORD = (f"_mta-sts.{DESTINATION}", "TXT")
LOOPBACK = "127.0.0.0/8"
MX1 = f"mx1.{DESTINATION}"


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
    with DnsServer({(HOST, "A"): ["127.0.0.1"]}) as server:
        yield server


@dataclass
class Clock:
    """The time of day and the monotonic one, moved together."""

    passed: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


@dataclass
class Finder:
    """What one replica knows, with its own memory and the shared store."""

    dns: DnsServer
    host: PolicyHost
    store: JetStream
    ca_file: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        # Nothing is kept, so that a changed record is seen at once.
        self._resolver = DnsResolver(DnsOptions(servers=(self.dns.address,), cache_entries=0))
        hosts = PolicyHosts(
            Https(
                self._resolver,
                allowed=lambda: (ip_network(LOOPBACK),),
                context=lambda: authenticating(self.ca_file),
                port=self.host.port,
            )
        )
        kept = StsStore(self.store, now=self.clock.now, clock=self.clock.monotonic)
        self.sts = MtaSts(
            self._resolver, hosts, kept, now=self.clock.now, clock=self.clock.monotonic
        )

    async def mode(self) -> Mode | None:
        """Of the policy in force."""
        finding = await self.sts.of(DESTINATION)
        return finding.policy.mode if finding.policy else None

    def announce(self, identity: str, answer: str | bytes) -> None:
        """Publish a policy under this id."""
        self.dns.records[RECORD] = [f"v=STSv1; id={identity};"]
        self.host.answer = response(answer) if isinstance(answer, str) else answer


@pytest.fixture
def finder(
    dns_server: DnsServer, host: PolicyHost, store: JetStream, ca_file: Path
) -> Callable[[], Finder]:
    clock = Clock()
    return lambda: Finder(dns_server, host, store, ca_file, clock)


ENFORCED = policy_text("enforce", MX1)
TESTED = policy_text("testing", MX1)
NOT_FOUND = response("", status="404 No")

Make = Callable[[], Finder]


async def test_without_a_record_nobody_is_asked(finder: Make, host: PolicyHost) -> None:
    assert await finder().sts.of(DESTINATION) == NO_POLICY
    assert not host.connections


async def test_a_policy_is_fetched_once_for_all_replicas(finder: Make, host: PolicyHost) -> None:
    one, other = finder(), finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE
    assert await other.mode() is Mode.ENFORCE
    assert await one.mode() is Mode.ENFORCE
    assert len(host.requests) == 1


async def test_many_mails_at_once_ask_once(finder: Make, host: PolicyHost) -> None:
    one = finder()
    one.announce("1", ENFORCED)
    assert await asyncio.gather(*(one.mode() for _ in range(20))) == [Mode.ENFORCE] * 20
    assert len(host.requests) == 1


async def test_another_id_means_another_policy(finder: Make, host: PolicyHost) -> None:
    one, other = finder(), finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE
    # A change at the host alone is not looked for.
    one.announce("1", TESTED)
    assert await one.mode() is Mode.ENFORCE
    one.announce("2", TESTED)
    assert await other.mode() is Mode.TESTING
    # The other replica has told what it fetched.
    assert await one.mode() is Mode.TESTING
    assert len(host.requests) == 2


async def test_a_policy_outlives_its_record_and_its_host(finder: Make, host: PolicyHost) -> None:
    one = finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE
    for records in (
        ["v=STSv1;"],
        ["v=STSv1; id=1;", "v=STSv1; id=2;"],
        [],
    ):
        one.dns.records[RECORD] = records
        assert await one.mode() is Mode.ENFORCE
    one.dns.servfail.add(RECORD[0])
    assert await one.mode() is Mode.ENFORCE
    one.dns.servfail.clear()
    for number, answer in enumerate((NOT_FOUND, response("junk"), response(ENFORCED, kind="a/b"))):
        one.announce(f"new{number}", answer)
        assert await one.mode() is Mode.ENFORCE
        one.clock.passed += timedelta(seconds=PAUSE_S)
    assert len(host.requests) == 4
    assert await finder().mode() is Mode.ENFORCE


async def test_a_policy_ends_when_its_time_is_over(finder: Make) -> None:
    one = finder()
    one.announce("1", policy_text("enforce", MX1, max_age=3600))
    assert await one.mode() is Mode.ENFORCE
    del one.dns.records[RECORD]
    one.clock.passed = timedelta(seconds=3500)
    assert await one.mode() is Mode.ENFORCE
    one.clock.passed = timedelta(seconds=3601)
    assert await one.mode() is None
    assert await finder().mode() is None


async def test_a_policy_in_use_is_renewed(finder: Make, host: PolicyHost) -> None:
    one = finder()
    one.announce("1", policy_text("enforce", MX1, max_age=3600))
    for _ in range(4):
        assert await one.mode() is Mode.ENFORCE
        one.clock.passed += timedelta(seconds=1801)
    assert len(host.requests) == 4


async def test_a_policy_may_be_taken_back(finder: Make) -> None:
    one = finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE
    one.announce("2", policy_text("none"))
    assert await one.mode() is None
    one.announce("3", NOT_FOUND)
    assert await one.mode() is None


async def test_a_host_that_fails_is_left_alone_for_a_while(finder: Make, host: PolicyHost) -> None:
    one = finder()
    one.announce("1", NOT_FOUND)
    for _ in range(3):
        finding = await one.sts.of(DESTINATION)
        assert (finding.policy, finding.failure) == (None, TlsResult.STS_POLICY_FETCH_ERROR)
        assert "404" in finding.detail
    assert len(host.requests) == 1
    one.clock.passed += timedelta(seconds=PAUSE_S + 1)
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE


@pytest.mark.expect_warnings("not an MTA-STS policy")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"junk",
        b"[]",
        b"{}",
        b'{"id": "1", "fetched": "2026-01-01", "mode": "enforce", "mx": [], "max_age": 9}',
        b'{"id": "1", "fetched": "now", "mode": "enforce", "mx": [], "max_age": 9}',
        b'{"id": "1", "fetched": 1, "mode": "?", "mx": [], "max_age": 9}',
    ],
)
async def test_what_is_no_entry_is_fetched_anew(
    finder: Make, store: JetStream, value: bytes, log_guard: object
) -> None:
    bucket = await store.bucket("mta_sts")
    await bucket.put(DESTINATION.encode().hex(), value)
    one = finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE


async def test_while_the_store_is_away_what_is_remembered_counts(
    finder: Make, store: JetStream
) -> None:
    one, other = finder(), finder()
    one.announce("1", ENFORCED)
    assert await one.mode() is Mode.ENFORCE
    await store.ask("$JS.API.STREAM.DELETE.KV_mta_sts", {})
    one.clock.passed += timedelta(seconds=REMEMBER_S)
    assert await one.mode() is Mode.ENFORCE
    with pytest.raises(StoreError):
        await other.mode()


async def test_what_is_remembered_is_read_again(finder: Make, store: JetStream) -> None:
    one, other = finder(), finder()
    assert await one.mode() is None
    other.announce("1", ENFORCED)
    assert await other.mode() is Mode.ENFORCE
    del one.dns.records[RECORD]
    assert await one.mode() is None
    one.clock.passed += timedelta(seconds=REMEMBER_S)
    assert await one.mode() is Mode.ENFORCE
