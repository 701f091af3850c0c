"""dnsbl_listed: RFC 5782's names and answers, and lists that do not answer."""

from ipaddress import ip_address
from typing import Any

import pytest

from services.policy.checks import dnsbl_listed
from services.policy.checks.check import Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means

ZONE = {
    ("1.2.0.192.bl.test", "A"): ["127.0.0.2"],
    ("1.2.0.192.bl.test", "TXT"): ["seen sending spam"],
    ("2.2.0.192.bl.test", "A"): ["127.0.0.10", "127.0.0.4"],
    ("3.2.0.192.bl.test", "A"): ["127.255.255.254"],
    ("4.2.0.192.bl.test", "A"): ["192.0.2.99"],
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test", "A"): ["127.0.0.2"],
    ("5.2.0.192.second.test", "A"): ["127.0.0.2"],
}
ALL = [{"zone": "bl.test"}]
SOME = [{"zone": "bl.test", "codes": ["127.0.0.4", "127.0.0.8/30"]}]
BOTH = [{"zone": "bl.test"}, {"zone": "second.test"}]
DOWN = [{"zone": "bl.test"}, {"zone": "down.test"}]


@pytest.mark.parametrize(
    ("client", "lists", "result"),
    [
        ("192.0.2.1", ALL, "listed"),
        ("::ffff:192.0.2.1", ALL, "listed"),
        ("2001:db8::1", ALL, "listed"),
        ("192.0.2.1", SOME, "pass"),
        ("192.0.2.2", SOME, "listed"),
        ("192.0.2.3", ALL, "temperror"),
        ("192.0.2.4", ALL, "pass"),
        ("192.0.2.77", ALL, "pass"),
        ("192.0.2.5", ALL, "pass"),
        ("192.0.2.5", BOTH, "listed"),
        ("192.0.2.1", DOWN, "listed"),
        ("192.0.2.77", DOWN, "temperror"),
    ],
)
async def test_lists(client: str, lists: list[dict[str, Any]], result: str) -> None:
    resolver = FakeResolver(ZONE, temporary={f"{n}.2.0.192.down.test" for n in (1, 77)})
    finding = await dnsbl_listed.find(
        envelope(client=client), means(resolver, {"dnsbl": {"lists": lists}})
    )
    standings = {
        "listed": Standing.OBJECTS,
        "pass": Standing.CLEAR,
        "temperror": Standing.UNKNOWN,
    }
    assert (finding.result, finding.standing) == (result, standings[result])


async def test_the_evidence_names_list_code_and_reason() -> None:
    finding = await dnsbl_listed.find(
        envelope(client="192.0.2.1"), means(FakeResolver(ZONE), {"dnsbl": {"lists": ALL}})
    )
    assert finding.explanation == "192.0.2.1 is on bl.test."
    assert finding.evidence == (
        ("client.address", "192.0.2.1"),
        ("dns.a", "1.2.0.192.bl.test: 127.0.0.2"),
        ("dns.txt", "1.2.0.192.bl.test: seen sending spam"),
    )


def test_names_of_rfc_5782() -> None:
    assert dnsbl_listed.reversed_name(ip_address("192.0.2.99")) == "99.2.0.192"
    expected = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
    assert dnsbl_listed.reversed_name(ip_address("2001:db8:1:2:3:4:567:89ab")) == expected


def test_without_lists_nothing_is_asked() -> None:
    assert dnsbl_listed.CHECK.applies is not None
    assert not dnsbl_listed.CHECK.applies(envelope(), means(FakeResolver()))
