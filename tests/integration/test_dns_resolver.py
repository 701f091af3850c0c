"""The resolver at work: caching, sharing, deadlines, several servers, metrics."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from services.common.dns import Answer, DnsOptions, DnsResolver, RecordType, Status
from services.common.dns.servers import REST_SECONDS
from tests.support.clock import FakeClock
from tests.support.dns_patience import give_up_soon
from tests.support.dns_server import DnsServer
from tests.support.soon import soon

RECORDS = {
    ("a.test", "A"): ["192.0.2.1"],
    ("b.test", "A"): ["192.0.2.2"],
    ("slow.test", "A"): ["192.0.2.3"],
    ("broken.test", "A"): ["192.0.2.4"],
}
NEGATIVE_TTL = 60  # of the test server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(
        RECORDS, servfail={"broken.test"}, timeout={"silent.test"}, slow={"slow.test": 0.15}
    ) as running:
        yield running


class Silent:
    """A server that takes questions and never answers."""

    def __init__(self, sock: socket.socket) -> None:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        self._sock = sock
        self.address = f"127.0.0.1:{sock.getsockname()[1]}"

    def heard(self) -> int:
        """How many questions have come since the last call."""
        count = 0
        while True:
            try:
                self._sock.recv(65535)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Silent(sock)


@pytest.fixture
async def resolver_of(clock: FakeClock) -> AsyncIterator[Callable[..., DnsResolver]]:
    """Makes resolvers of some servers; the keyword arguments are those of `DnsOptions`."""
    async with AsyncExitStack() as stack:

        def make(*servers: str, **settings: float) -> DnsResolver:
            patience = {"attempt_timeout": 15.0, "deadline": 30.0}
            options = DnsOptions(servers=servers, **{**patience, **settings})  # type: ignore[arg-type]
            resolver = DnsResolver(options, clock=clock)
            stack.push_async_callback(resolver.close)
            return resolver

        yield make


async def ask(resolver: DnsResolver, *names: str) -> list[Answer]:
    return await asyncio.gather(*(resolver.query(name, RecordType.A) for name in names))


@pytest.mark.parametrize(
    ("name", "status", "kept_seconds"),
    [
        ("a.test", Status.OK, 300),
        ("below.a.test", Status.NXDOMAIN, NEGATIVE_TTL),
        ("broken.test", Status.TEMPORARY, 3),
    ],
)
async def test_an_answer_is_kept_for_its_time(
    server: DnsServer,
    clock: FakeClock,
    resolver_of: Callable[..., DnsResolver],
    name: str,
    status: Status,
    kept_seconds: float,
) -> None:
    resolver = resolver_of(server.address)
    (first,) = await ask(resolver, name)
    assert first.status is status
    clock.advance(kept_seconds - 0.1)
    assert await ask(resolver, name.upper() + ".") == [first]
    assert server.asked(name, "A") == 1
    clock.advance(0.1)
    await ask(resolver, name)
    assert server.asked(name, "A") == 2


async def test_a_change_is_seen_when_the_old_answer_has_expired(
    server: DnsServer, clock: FakeClock, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address, max_ttl=30)
    await ask(resolver, "a.test")
    server.records["a.test", "A"] = ["192.0.2.99"]
    clock.advance(30)
    (answer,) = await ask(resolver, "a.test")
    assert [str(record) for record in answer.records] == ["192.0.2.99"]


async def test_a_peek_asks_nobody(
    server: DnsServer, clock: FakeClock, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address)
    assert resolver.cached("a.test", RecordType.A) is None
    (answer,) = await ask(resolver, "a.test")
    assert resolver.cached("A.test.", RecordType.A) is answer
    assert resolver.cached("a.test", RecordType.MX) is None
    assert resolver.cached("no..name", RecordType.A) is None
    clock.advance(300)
    assert resolver.cached("a.test", RecordType.A) is None
    assert len(server.queries) == 1


async def test_a_cached_answer_switches_no_tasks(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address)
    (answer,) = await ask(resolver, "a.test")
    coroutine = resolver.query("a.test", RecordType.A)
    with pytest.raises(StopIteration) as finished:
        coroutine.send(None)
    assert finished.value.value is answer


async def test_without_a_cache_every_lookup_is_asked(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address, cache_entries=0)
    await ask(resolver, "a.test")
    await ask(resolver, "a.test")
    assert server.asked("a.test", "A") == 2


async def test_lookups_at_the_same_time_share_one_question(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address, cache_entries=0)
    answers = await ask(resolver, *["slow.test", "SLOW.test."] * 10)
    assert {answer.status for answer in answers} == {Status.OK}
    assert server.asked("slow.test", "A") == 1


async def test_a_cancelled_caller_takes_nothing_from_the_others(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address)
    first = asyncio.create_task(resolver.query("slow.test", RecordType.A))
    await asyncio.sleep(0)
    second = asyncio.create_task(resolver.query("slow.test", RecordType.A))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).status is Status.OK
    assert server.asked("slow.test", "A") == 1


async def test_a_lookup_that_nobody_waits_for_still_fills_the_cache(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(server.address)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await resolver.query("slow.test", RecordType.A)
    assert (await ask(resolver, "slow.test"))[0].status is Status.OK
    assert server.asked("slow.test", "A") == 1


@pytest.mark.timed
async def test_the_deadline_holds_whatever_happens(
    silent: Silent, resolver_of: Callable[..., DnsResolver]
) -> None:
    async def attempt() -> float:
        resolver = resolver_of(silent.address, attempt_timeout=0.2, deadline=0.5, max_concurrent=1)
        began = time.monotonic()
        answers = await ask(resolver, "a.test", "b.test", "c.test")
        took = time.monotonic() - began
        assert took > 0.4
        assert [answer.status for answer in answers] == [Status.TEMPORARY] * 3
        assert all("by the deadline of 0.5 s" in answer.detail for answer in answers)
        return took

    await soon(attempt, seconds=1.5)


async def test_a_lost_question_is_asked_again(
    server: DnsServer, resolver_of: Callable[..., DnsResolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.lost["a.test"] = 2
    attempts = iter([True, True])
    give_up_soon(monkeypatch, lambda _: next(attempts, False))
    assert (await ask(resolver_of(server.address), "a.test"))[0].status is Status.OK
    assert server.asked("a.test", "A") == 3


async def test_waiting_lookups_are_limited(
    server: DnsServer, silent: Silent, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(
        silent.address, attempt_timeout=0.5, deadline=0.5, max_concurrent=1, max_pending=2
    )
    first, second, third, again = await ask(resolver, "a.test", "b.test", "c.test", "a.test")
    assert third.status is Status.TEMPORARY
    assert "too many lookups" in third.detail
    assert again == first  # joined the one that was waiting
    assert "too many" not in first.detail + second.detail
    # It was not asked, so it is not remembered either.
    assert resolver.cached("c.test", RecordType.A) is None


async def test_no_more_questions_at_a_time_than_slots(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    for name in ("1.test", "2.test", "3.test", "4.test"):
        server.slow[name] = 0.1
    resolver = resolver_of(server.address, max_concurrent=2)
    began = time.monotonic()
    answers = await ask(resolver, "1.test", "2.test", "3.test", "4.test")
    assert time.monotonic() - began > 0.15
    assert {answer.status for answer in answers} == {Status.NXDOMAIN}


async def test_closing_answers_those_who_wait(
    silent: Silent, resolver_of: Callable[..., DnsResolver]
) -> None:
    resolver = resolver_of(silent.address, deadline=30, attempt_timeout=30)
    waiting = asyncio.create_task(resolver.query("a.test", RecordType.A))
    await asyncio.sleep(0)
    await resolver.close()
    answer = await waiting
    assert answer.status is Status.TEMPORARY
    assert "closed" in answer.detail


async def test_the_next_server_is_asked_if_one_fails(
    server: DnsServer, free_port: int, resolver_of: Callable[..., DnsResolver]
) -> None:
    with DnsServer(servfail={"a.test"}, refused={"b.test"}) as poor:
        resolver = resolver_of(f"127.0.0.1:{free_port}", poor.address, server.address)
        answers = await ask(resolver, "a.test", "b.test")
        assert [answer.status for answer in answers] == [Status.OK, Status.OK]
        # But what one server denies is denied: the next is not asked for a better answer.
        assert (await ask(resolver, "slow.test"))[0].status is Status.NXDOMAIN


async def test_a_failure_of_all_servers_names_them_all(
    server: DnsServer, free_port: int, resolver_of: Callable[..., DnsResolver]
) -> None:
    dead = f"127.0.0.1:{free_port}"
    (answer,) = await ask(resolver_of(dead, server.address), "broken.test")
    assert answer.status is Status.TEMPORARY
    assert f"{dead}: " in answer.detail
    assert f"{server.address} says SERVFAIL" in answer.detail


async def test_a_silent_server_costs_one_attempt_and_not_every_lookup(
    server: DnsServer,
    silent: Silent,
    clock: FakeClock,
    resolver_of: Callable[..., DnsResolver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_up_soon(monkeypatch, lambda asked: str(asked) == silent.address)
    resolver = resolver_of(silent.address, server.address)
    assert [answer.status for answer in await ask(resolver, "a.test")] == [Status.OK]
    assert silent.heard() == 1
    assert [answer.status for answer in await ask(resolver, "b.test")] == [Status.OK]
    assert silent.heard() == 0
    clock.advance(REST_SECONDS)
    assert [answer.status for answer in await ask(resolver, "c.test")] == [Status.NXDOMAIN]
    assert silent.heard() == 1


async def test_ipv6_servers_are_asked_too(resolver_of: Callable[..., DnsResolver]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        sock.setblocking(False)
        resolver = resolver_of(f"[::1]:{sock.getsockname()[1]}")
        lookup = asyncio.create_task(resolver.query("a.test", RecordType.A))
        question = await asyncio.get_running_loop().sock_recv(sock, 512)
        assert b"\x01a\x04test\x00" in question
        await resolver.close()
        await lookup


async def test_a_fault_of_ours_is_temporary_and_logged(
    server: DnsServer,
    resolver_of: Callable[..., DnsResolver],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("nobody thought of this")

    monkeypatch.setattr("services.common.dns.resolver.read_reply", broken)
    (answer,) = await ask(resolver_of(server.address), "a.test")
    assert answer.status is Status.TEMPORARY
    assert "internal error (LookupError)" in answer.detail
    assert "DNS lookup failed unexpectedly" in caplog.text


async def test_metrics_count_what_was_asked_and_what_was_not(
    server: DnsServer, resolver_of: Callable[..., DnsResolver]
) -> None:
    before = _figures()
    resolver = resolver_of(server.address)
    await ask(resolver, "a.test", "nowhere.test", "broken.test")
    await ask(resolver, "a.test", "a.test", "no..name")
    resolver.cached("b.test", RecordType.A)
    after = _figures()
    assert {name: after[name] - before[name] for name in after} == {
        "ok": 1,
        "nxdomain": 1,
        "temporary": 1,
        "hits": 2,
        "seconds": 3,
    }


def _figures() -> dict[str, float]:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    return {
        **{
            status: value("gatepost_dns_queries_total", rdtype="A", status=status)
            for status in ("ok", "nxdomain", "temporary")
        },
        "hits": value("gatepost_dns_cache_hits_total"),
        "seconds": value("gatepost_dns_query_seconds_count"),
    }
