"""Every server of a zone is asked, and what cannot be asked is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from services.common.dns import (
    AllAnswers,
    DnsOptions,
    DnsResolver,
    RecordType,
    Status,
    ZoneServers,
)
from tests.support.dns_patience import give_up_soon
from tests.support.dns_server import DnsServer
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.zone import Key

_NAME = "s1._domainkey.a.test"
_TXT = (_NAME, "TXT")


class _World:
    """Two name servers on one port, and a recursive server that knows where they are."""

    def __init__(self) -> None:
        port = free_port()
        self.first = DnsServer(authoritative=True, host="127.0.0.1", port=port)
        self.second = DnsServer(authoritative=True, host="127.0.0.2", port=port)
        self.recursive = DnsServer(
            {
                ("a.test", "NS"): ["ns1.a.test", "ns2.a.test"],
                ("ns1.a.test", "A"): ["127.0.0.1"],
                ("ns2.a.test", "A"): ["127.0.0.2"],
            }
        )
        self.servers = (self.first, self.second, self.recursive)

    def publish(self, key: Key, *values: str) -> None:
        for server in (self.first, self.second):
            server.records[key] = list(values)


@pytest.fixture
def world() -> Iterator[_World]:
    world = _World()
    for server in world.servers:
        server.start()
    yield world
    for server in world.servers:
        server.stop()


@pytest.fixture
async def resolver(world: _World) -> AsyncIterator[DnsResolver]:
    options = DnsOptions(
        servers=(world.recursive.address,),
        attempt_timeout=15,
        deadline=30,
        min_ttl=0,
        temporary_ttl=0,
        cache_entries=0,
    )
    resolver = DnsResolver(options)
    yield resolver
    await resolver.close()


@pytest.fixture
def authority(world: _World, resolver: DnsResolver) -> ZoneServers:
    return ZoneServers(resolver, attempt_timeout=15, deadline=30, port=world.first.port)


def _said(answers: AllAnswers) -> dict[str, tuple[Status, tuple[object, ...]]]:
    return {said.server: (said.answer.status, said.answer.records) for said in answers.servers}


async def test_each_server_is_asked_itself(world: _World, authority: ZoneServers) -> None:
    world.first.records[_TXT] = ["new"]
    world.second.records[_TXT] = ["old"]
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert (answers.zone, answers.problem) == ("a.test", "")
    assert _said(answers) == {
        "ns1.a.test (127.0.0.1)": (Status.OK, (b"new",)),
        "ns2.a.test (127.0.0.2)": (Status.OK, (b"old",)),
    }
    # Nobody was asked to ask somebody else, and no cache was.
    assert world.recursive.asked(_NAME, "TXT") == 0


async def test_a_record_at_one_of_two_is_told_apart(world: _World, authority: ZoneServers) -> None:
    world.first.records[_TXT] = ["here"]
    world.second.records["a.test", "TXT"] = ["other"]
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert [said.answer.status for said in answers.servers] == [Status.OK, Status.NXDOMAIN]


async def test_a_silent_server_is_no_answer(
    world: _World, authority: ZoneServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_soon(monkeypatch, lambda asked: str(asked) == world.second.address)
    world.publish(_TXT, "here")
    world.second.timeout.add(_NAME)
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert [said.answer.status for said in answers.servers] == [Status.OK, Status.TEMPORARY]
    assert "no valid answer" in answers.servers[1].answer.detail

    async def heard_twice() -> bool:  # a datagram may get lost once
        return world.second.asked(_NAME, "TXT") == 2

    await eventually(heard_twice)


async def test_a_server_that_is_not_responsible_is_no_answer(
    world: _World, authority: ZoneServers
) -> None:
    world.publish(_TXT, "here")
    world.second.authoritative = False
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert answers.servers[1].answer.status is Status.TEMPORARY
    assert "not authoritative" in answers.servers[1].answer.detail


async def test_a_name_server_without_an_address_is_named(
    world: _World, authority: ZoneServers
) -> None:
    world.publish(_TXT, "here")
    world.recursive.records["a.test", "NS"] = ["ns1.a.test", "nowhere.test"]
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    said = _said(answers)
    assert said["ns1.a.test (127.0.0.1)"][0] is Status.OK
    assert said["nowhere.test"][0] is Status.TEMPORARY


async def test_the_nearest_zone_is_the_one(world: _World, authority: ZoneServers) -> None:
    world.recursive.records["_domainkey.a.test", "NS"] = ["ns2.a.test"]
    world.publish(_TXT, "here")
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert answers.zone == "_domainkey.a.test"
    assert [said.server for said in answers.servers] == ["ns2.a.test (127.0.0.2)"]


async def test_an_alias_is_followed_into_its_own_zone(
    world: _World, authority: ZoneServers
) -> None:
    world.recursive.records["b.test", "NS"] = ["ns2.a.test"]
    for server in (world.first, world.second):
        server.bare_alias.add(_NAME)
        server.records[_NAME, "CNAME"] = ["s1.b.test"]
    world.second.records["s1.b.test", "TXT"] = ["there"]
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert [said.alias for said in answers.servers] == ["s1.b.test", "s1.b.test"]
    [target] = answers.aliases
    assert (target.zone, target.servers[0].answer.records) == ("b.test", (b"there",))


async def test_a_circle_of_aliases_ends(world: _World, authority: ZoneServers) -> None:
    for server in (world.first, world.second):
        server.bare_alias |= {_NAME, "x.a.test"}
        server.records[_NAME, "CNAME"] = ["x.a.test"]
        server.records["x.a.test", "CNAME"] = [_NAME]
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    problems = []
    while answers.aliases:
        answers = answers.aliases[0]
        problems.append(answers.problem)
    assert problems[-1] == "too long a chain of CNAMEs"


async def test_a_domain_that_nobody_serves(world: _World, authority: ZoneServers) -> None:
    answers = await authority.ask_all("s1._domainkey.nobody.example", RecordType.TXT)
    assert answers.servers == ()
    assert "no name servers were found" in answers.problem
    # What top-level domains say of names that are not theirs to serve proves nothing.
    assert world.recursive.asked("example", "NS") == 0


async def test_a_zone_that_cannot_be_found_just_now(world: _World, authority: ZoneServers) -> None:
    world.recursive.servfail.add(("a.test", "NS"))
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert "the name servers of a.test cannot be looked up" in answers.problem


async def test_no_name_is_no_question(authority: ZoneServers) -> None:
    answers = await authority.ask_all("a\tb.test", RecordType.TXT)
    assert "not a domain name" in answers.problem


async def test_the_whole_has_a_deadline(world: _World, resolver: DnsResolver) -> None:
    world.first.timeout.add(_NAME)
    authority = ZoneServers(resolver, deadline=0.2, port=world.first.port)
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert answers.problem == "not all servers answered in 0.2 s"


async def test_servers_named_by_the_operator_are_asked_instead(
    world: _World, resolver: DnsResolver
) -> None:
    world.first.authoritative = False  # they may be resolvers
    world.first.records[_TXT] = ["here"]
    authority = ZoneServers(
        resolver, servers=(world.first.address,), attempt_timeout=15, deadline=30
    )
    answers = await authority.ask_all(_NAME, RecordType.TXT)
    assert _said(answers) == {world.first.address: (Status.OK, (b"here",))}
    assert not world.recursive.queries
