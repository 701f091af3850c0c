"""The resolver against a real server on loopback: what it makes of each answer, good and bad."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from services.common.dns import (
    Answer,
    DnsOptions,
    DnsResolver,
    MxRecord,
    RecordType,
    Status,
    mx,
)
from services.common.dns.resolver import MAX_ALIASES
from tests.support.dns_server import DnsServer
from tests.support.resolver import FakeResolver
from tests.support.soon import soon
from tests.support.zone import Key

RECORDS: dict[Key, list[str]] = {
    ("a.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.test", "AAAA"): ["2001:db8::1"],
    ("a.test", "MX"): ["10 Mx.A.Test", "20 mx2.a.test."],
    ("a.test", "NS"): ["ns.a.test"],
    ("a.test", "SOA"): ["ns.a.test. host.a.test. 2026112301 3600 600 86400 60"],
    ("a.test", "TXT"): ["v=spf1 -all", '"v=DKIM1; " "p=" ""', "x" * 700],
    ("_25._tcp.mx.a.test", "TLSA"): ["3 1 1 " + "ab" * 32],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["a.test"],
    ("null.test", "MX"): ["0 ."],
    ("large.test", "TXT"): [f"{number} " + "y" * 200 for number in range(30)],
    ("medium.test", "TXT"): ["y" * 1400],
    ("hollow.test", "TXT"): ["v=spf1 -all"],
    ("hollow.test", "A"): ["192.0.2.9"],
    ("largehollow.test", "TXT"): [f"{number} " + "y" * 200 for number in range(30)],
    ("deep.below.test", "A"): ["192.0.2.3"],
    ("alias.test", "CNAME"): ["alias2.test"],
    ("alias2.test", "CNAME"): ["a.test"],
    ("bare.test", "CNAME"): ["bare2.test"],
    ("bare2.test", "CNAME"): ["a.test"],
    ("dangling.test", "CNAME"): ["nowhere.test"],
    ("loop.test", "CNAME"): ["loop2.test"],
    ("loop2.test", "CNAME"): ["loop.test"],
    ("bareloop.test", "CNAME"): ["bareloop2.test"],
    ("bareloop2.test", "CNAME"): ["bareloop.test"],
    **{(f"chain{n}.test", "CNAME"): [f"chain{n + 1}.test"] for n in range(MAX_ALIASES + 2)},
    **{
        (name, "A"): ["192.0.2.9"]
        for name in (
            "servfail.test",
            "refused.test",
            "silent.test",
            "cut.test",
            "cutoff.test",
            "otherid.test",
            "garbage.test",
            "forged.test",
            "referral.test",
            "slow.test",
            "signed.test",
            f"chain{MAX_ALIASES + 2}.test",
        )
    },
    ("half.test", "CNAME"): ["signed.test"],
}
BARE = {"bare.test", "bareloop.test", "bareloop2.test", "half.test"}
BARE |= {f"chain{n}.test" for n in range(MAX_ALIASES + 2)}


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with DnsServer(
        RECORDS,
        servfail={"servfail.test"},
        refused={"refused.test"},
        timeout={"silent.test"},
        nxdomain={"denied.test"},
        empty={"empty.test"},
        truncated={"cut.test", "cutoff.test"},
        no_tcp={"cutoff.test"},
        wrong_id={"otherid.test"},
        garbage={"garbage.test"},
        hollow={"hollow.test", "largehollow.test"},
        forged={"forged.test"},
        referral={"referral.test"},
        bare_alias=BARE,
        authentic={"signed.test", ("a.test", "MX")},
        slow={"slow.test": 0.1},
        ttls={("bare.test", "CNAME"): 20, ("bare2.test", "CNAME"): 40},
    ) as running:
        yield running


@pytest.fixture
async def resolver(server: DnsServer) -> AsyncIterator[DnsResolver]:
    server.queries.clear()
    opened = DnsResolver(
        DnsOptions(servers=(server.address,), attempt_timeout=15, deadline=30, cache_entries=0)
    )
    yield opened
    await opened.close()


SAME_AS_THE_DOUBLE: list[tuple[str, RecordType]] = [
    *(("a.test", rdtype) for rdtype in RecordType),
    ("A.Test.", RecordType.MX),
    ("_25._tcp.mx.a.test", RecordType.TLSA),
    ("1.2.0.192.in-addr.arpa", RecordType.PTR),
    ("null.test", RecordType.MX),
    ("alias.test", RecordType.A),
    ("alias.test", RecordType.MX),
    ("alias.test", RecordType.CNAME),
    ("alias.test", RecordType.PTR),
    ("bare.test", RecordType.A),
    ("dangling.test", RecordType.A),
    ("loop.test", RecordType.A),
    ("bareloop.test", RecordType.A),
    ("below.test", RecordType.A),
    ("nowhere.test", RecordType.A),
    ("large.test", RecordType.TXT),
    ("no..name", RecordType.A),
]


@pytest.mark.parametrize(("name", "rdtype"), SAME_AS_THE_DOUBLE)
async def test_the_double_answers_as_the_resolver_does(
    resolver: DnsResolver, name: str, rdtype: RecordType
) -> None:
    real, double = (
        await resolver.query(name, rdtype),
        await FakeResolver(RECORDS).query(name, rdtype),
    )
    assert _essence(real) == _essence(double)


@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("nowhere.test", Status.NXDOMAIN, "says that there is no such name"),
        ("denied.test", Status.NXDOMAIN, "says that there is no such name"),
        ("dangling.test", Status.NXDOMAIN, "says that there is no such name"),
        ("below.test", Status.NO_DATA, "says that there is no such record"),
        ("empty.test", Status.NO_DATA, "says that there is no such record"),
        ("servfail.test", Status.TEMPORARY, "says SERVFAIL"),
        ("refused.test", Status.TEMPORARY, "says REFUSED"),
        ("garbage.test", Status.TEMPORARY, "malformed answer"),
        ("hollow.test", Status.TEMPORARY, "malformed answer"),
        ("cutoff.test", Status.TEMPORARY, "closed the TCP connection early"),
        ("referral.test", Status.TEMPORARY, "refers to other servers"),
        ("loop.test", Status.TEMPORARY, "a CNAME loop"),
        ("bareloop.test", Status.TEMPORARY, "a CNAME loop through bareloop.test"),
        ("chain1.test", Status.TEMPORARY, f"a chain of more than {MAX_ALIASES} CNAMEs"),
    ],
)
async def test_a_failure_says_what_was_asked_of_whom_and_what_happened(
    server: DnsServer, resolver: DnsResolver, name: str, status: Status, detail: str
) -> None:
    told = await _told(resolver, name, status)
    assert detail in told
    if "chain" not in name and "bareloop" not in name:
        assert server.address in told


async def test_a_server_without_a_valid_answer_is_told_with_how_long_it_had(
    server: DnsServer,
) -> None:
    # There is time for a whole attempt, whatever else the machine does.
    resolver = DnsResolver(DnsOptions(servers=(server.address,), attempt_timeout=0.3, deadline=6))
    names = ("silent.test", "otherid.test")
    for told in await asyncio.gather(*(_told(resolver, name, Status.TEMPORARY) for name in names)):
        assert f"{server.address}: no valid answer in 0.3 s" in told
    await resolver.close()


async def _told(resolver: DnsResolver, name: str, status: Status) -> str:
    """What a lookup says that brings no records."""
    answer = await resolver.query(name, RecordType.A)
    assert (answer.status, answer.records) == (status, ())
    assert answer.detail.startswith(f"A {name}: ")
    assert answer.detail.isprintable()
    return answer.detail


@pytest.mark.parametrize("name", ["slow.test", "cut.test", "forged.test", "chain2.test"])
async def test_a_good_answer_comes_through_all_the_same(resolver: DnsResolver, name: str) -> None:
    answer = await resolver.query(name, RecordType.A)
    assert [str(record) for record in answer.records] == ["192.0.2.9"]


@pytest.mark.parametrize(("name", "count"), [("hollow.test", 1), ("largehollow.test", 30)])
async def test_a_text_record_without_any_text_hides_no_other(
    resolver: DnsResolver, name: str, count: int
) -> None:
    """Over UDP and TCP; an address without octets makes its answer malformed."""
    answer = await resolver.query(name, RecordType.TXT)
    assert (answer.status, len(answer.records)) == (Status.OK, count)


async def test_an_answer_is_kept_no_longer_than_any_alias_on_its_way(
    resolver: DnsResolver,
) -> None:
    assert (await resolver.query("bare.test", RecordType.A)).ttl == 20


@pytest.mark.parametrize(("name", "records"), [("large.test", 30), ("medium.test", 1)])
async def test_what_does_not_fit_unfragmented_is_asked_for_over_tcp(
    server: DnsServer, resolver: DnsResolver, name: str, records: int
) -> None:
    answer = await resolver.query(name, RecordType.TXT)
    assert len(answer.records) == records
    assert server.queries == [(name, "TXT", "udp"), (name, "TXT", "tcp")]


async def test_a_null_mx_is_an_answer(resolver: DnsResolver) -> None:
    found = await mx(resolver, "null.test")
    assert (found.status, found.records) == (Status.OK, (MxRecord(0, "."),))
    assert found.records[0].is_null


@pytest.mark.parametrize(
    ("name", "rdtype", "authentic"),
    [
        ("a.test", RecordType.MX, True),
        ("a.test", RecordType.A, False),
        ("signed.test", RecordType.A, True),
        ("signed.test", RecordType.MX, True),
        ("half.test", RecordType.A, False),  # the alias itself is not signed
    ],
)
async def test_authentic_is_what_the_server_validated(
    resolver: DnsResolver, name: str, rdtype: RecordType, authentic: bool
) -> None:
    assert (await resolver.query(name, rdtype)).authentic is authentic


@pytest.mark.parametrize("name", ["", "no..name", "a\tb.test", "x" * 64 + ".test", "a\r\n.test"])
async def test_what_is_no_name_is_not_asked_for(
    server: DnsServer, resolver: DnsResolver, name: str
) -> None:
    answer = await resolver.query(name, RecordType.MX)
    assert answer.status is Status.NXDOMAIN
    assert "not a domain name" in answer.detail
    assert answer.detail.isprintable()
    assert answer.name.isprintable()
    assert server.queries == []


async def test_names_are_absolute(server: DnsServer, resolver: DnsResolver) -> None:
    await resolver.query("localhost", RecordType.A)
    await resolver.query("nowhere.test", RecordType.A)
    assert [query.name for query in server.queries] == ["localhost", "nowhere.test"]


async def test_a_server_without_edns_is_asked_without() -> None:
    with DnsServer(RECORDS, edns=False) as old:
        resolver = DnsResolver(DnsOptions(servers=(old.address,)))
        answer = await resolver.query("large.test", RecordType.TXT)
        assert len(answer.records) == 30
        await resolver.close()


@pytest.mark.timed
async def test_nobody_listening_is_told_at_once(free_port: int) -> None:
    async def attempt() -> float:
        resolver = DnsResolver(DnsOptions(servers=(f"127.0.0.1:{free_port}",)))
        began = time.monotonic()
        answer = await resolver.query("a.test", RecordType.A)
        took = time.monotonic() - began
        assert answer.status is Status.TEMPORARY
        assert "refused" in answer.detail
        await resolver.close()
        return took

    await soon(attempt, seconds=1)  # against attempts of two seconds


def test_it_runs_on_uvloop(server: DnsServer) -> None:
    async def ask(attempt_timeout: float, deadline: float, *names: str) -> list[Status]:
        options = DnsOptions(
            servers=(server.address,), attempt_timeout=attempt_timeout, deadline=deadline
        )
        resolver = DnsResolver(options)
        answers = await asyncio.gather(*(resolver.query(name, RecordType.A) for name in names))
        await resolver.close()
        return [answer.status for answer in answers]

    async def ask_all() -> list[list[Status]]:
        answered = ask(15, 30, "a.test", "cut.test", "nowhere.test", "forged.test")
        return await asyncio.gather(answered, ask(0.2, 0.3, "silent.test"))

    expected = [[Status.OK, Status.OK, Status.NXDOMAIN, Status.OK], [Status.TEMPORARY]]
    assert uvloop.run(ask_all()) == expected


def _essence(answer: Answer) -> tuple[object, ...]:
    """All but what the two cannot share: TTLs and wording; a server shuffles its records."""
    records = sorted(map(repr, answer.records))
    return answer.name, answer.rdtype, answer.status, records, answer.canonical
