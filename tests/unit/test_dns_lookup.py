"""The typed lookups, over the resolver double."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from services.common.dns import Lookup, MxRecord, RecordType, Status, addresses, mx, ptr, txt
from tests.support.resolver import FakeResolver

RECORDS = {
    ("both.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("both.test", "AAAA"): ["2001:db8::1"],
    ("four.test", "A"): ["192.0.2.4"],
    ("alias.test", "CNAME"): ["both.test"],
    ("text.test", "TXT"): ["v=spf1 -all", '"two " "strings"'],
    ("mail.test", "MX"): ["20 b.mail.test", "10 a.mail.test", "20 c.mail.test"],
    ("null.test", "MX"): ["0 ."],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["Both.test."],
    ("1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa", "PTR"): ["six.test"],
}
FOUR = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
SIX = (IPv6Address("2001:db8::1"),)


@pytest.mark.parametrize(
    ("host", "temporary", "status", "records", "partial"),
    [
        ("both.test", set(), Status.OK, SIX + FOUR, False),
        ("alias.test", set(), Status.OK, SIX + FOUR, False),
        ("four.test", set(), Status.OK, (IPv4Address("192.0.2.4"),), False),
        ("text.test", set(), Status.NO_DATA, (), False),
        ("none.test", set(), Status.NXDOMAIN, (), False),
        ("no..name", set(), Status.NXDOMAIN, (), False),
        ("both.test", {("both.test", "A")}, Status.OK, SIX, True),
        ("both.test", {("both.test", "AAAA")}, Status.OK, FOUR, True),
        ("four.test", {("four.test", "AAAA")}, Status.OK, (IPv4Address("192.0.2.4"),), True),
        ("four.test", {("four.test", "A")}, Status.TEMPORARY, (), False),
        ("both.test", {"both.test"}, Status.TEMPORARY, (), False),
    ],
)
async def test_addresses_of_both_families_are_joined(
    host: str,
    temporary: set[str | tuple[str, str]],
    status: Status,
    records: tuple[IPv4Address | IPv6Address, ...],
    partial: bool,
) -> None:
    found = await addresses(FakeResolver(RECORDS, temporary=temporary), host)
    assert (found.status, found.records, found.partial) == (status, records, partial)
    assert bool(found.detail) == (partial or status is not Status.OK)


async def test_the_families_are_the_callers_choice_and_order() -> None:
    resolver = FakeResolver(RECORDS)
    found = await addresses(resolver, "both.test", (RecordType.A,))
    assert (found.records, found.canonical) == (FOUR, "both.test")
    found = await addresses(resolver, "alias.test", (RecordType.A, RecordType.AAAA))
    assert (found.records, found.canonical) == (FOUR + SIX, "both.test")
    with pytest.raises(ValueError, match="families"):
        await addresses(resolver, "both.test", (RecordType.MX,))
    with pytest.raises(ValueError, match="families"):
        await addresses(resolver, "both.test", ())


async def test_addresses_are_authentic_only_if_all_are() -> None:
    resolver = FakeResolver(RECORDS, authentic={("both.test", "A")})
    assert not (await addresses(resolver, "both.test")).authentic
    resolver.authentic.add("both.test")
    assert (await addresses(resolver, "both.test")).authentic


async def test_mail_exchanges_come_by_preference() -> None:
    found = await mx(FakeResolver(RECORDS), "mail.test")
    assert found.records[0] == MxRecord(10, "a.mail.test")
    assert {record.exchange for record in found.records[1:]} == {"b.mail.test", "c.mail.test"}
    assert not any(record.is_null for record in found.records)


async def test_a_null_mx_is_not_the_same_as_none() -> None:
    resolver = FakeResolver(RECORDS)
    null = await mx(resolver, "null.test")
    assert (null.status, [record.is_null for record in null.records]) == (Status.OK, [True])
    assert (await mx(resolver, "both.test")).status is Status.NO_DATA
    assert (await mx(resolver, "none.test")).status is Status.NXDOMAIN


async def test_texts_are_joined_without_gaps() -> None:
    found = await txt(FakeResolver(RECORDS), "TEXT.test.")
    assert found == Lookup(
        "text.test",
        Status.OK,
        (b"v=spf1 -all", b"two strings"),
        canonical="text.test",
        ttl=found.ttl,
    )


@pytest.mark.parametrize(
    ("address", "names"),
    [("192.0.2.1", ("both.test",)), ("2001:db8::1", ("six.test",)), ("192.0.2.9", ())],
)
async def test_names_of_an_address(address: str, names: tuple[str, ...]) -> None:
    assert (await ptr(FakeResolver(RECORDS), ip_address(address))).records == names


async def test_the_double_knows_what_it_was_asked() -> None:
    resolver = FakeResolver(RECORDS)
    assert resolver.cached("both.test", RecordType.A) is None
    asked = await resolver.query("Both.Test", RecordType.A)
    assert resolver.queries == [("Both.Test", RecordType.A)]
    assert resolver.cached("both.test.", RecordType.A) == asked
