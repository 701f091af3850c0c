"""From a domain to addresses: RFC 5321 §5.1, null MX, doubt, and networks that are off limits."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from services.common.config.next_hop import HopProtocol, NextHop
from services.common.mail.reply import Reply
from services.common.networks import is_forbidden
from services.delivery.exchanges import (
    ALL_FORBIDDEN,
    HOP_UNKNOWN,
    LOOKUP_FAILED,
    NO_MAIL_HOST,
    NO_SUCH_DOMAIN,
    NULL_MX,
    OURSELVES,
    Networks,
    NoExchange,
    hosts_of_domain,
    hosts_of_hop,
)
from tests.support.resolver import FakeResolver

A, B, C = "203.0.114.1", "203.0.114.2", "203.0.114.3"
ZONE: dict[tuple[str, str], list[str]] = {
    ("one.test", "MX"): ["10 a.test"],
    ("ranked.test", "MX"): ["20 b.test", "10 a.test", "30 c.test"],
    ("ours.test", "MX"): ["10 a.test", "20 mail.test", "30 c.test"],
    ("best.test", "MX"): ["10 mail.test", "30 c.test"],
    ("null.test", "MX"): ["0 ."],
    ("plain.test", "A"): [A],
    ("empty.test", "TXT"): ["nothing here"],
    ("dangling.test", "MX"): ["10 gone.test"],
    ("private.test", "MX"): ["10 inside.test"],
    ("mixed.test", "MX"): ["10 inside.test", "20 a.test"],
    ("doubt.test", "MX"): ["10 broken.test"],
    ("halfdoubt.test", "MX"): ["10 broken.test", "20 b.test"],
    ("a.test", "A"): [A],
    ("b.test", "A"): [B],
    ("c.test", "A"): [C],
    ("mail.test", "A"): ["203.0.114.9"],
    ("inside.test", "A"): ["10.1.2.3"],
    ("six.test", "MX"): ["10 both.test"],
    ("both.test", "AAAA"): ["2a00:1450::1"],
    ("both.test", "A"): [A],
}
TEMPORARY = {"servfail.test", "broken.test"}


async def addresses(domain: str, allowed: Networks = ()) -> list[str]:
    resolver = FakeResolver(ZONE, temporary=TEMPORARY)
    hosts = await hosts_of_domain(resolver, domain, own_name="mail.test", allowed=allowed)
    return [str(host.address) for host in hosts]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("one.test", [A]),
        ("ranked.test", [A, B, C]),
        ("ours.test", [A]),
        ("plain.test", [A]),
        ("mixed.test", [A]),
        ("halfdoubt.test", [B]),
        ("six.test", ["2a00:1450::1", A]),
        (f"[{A}]", [A]),
    ],
)
async def test_the_addresses_in_order(domain: str, expected: list[str]) -> None:
    assert await addresses(domain) == expected


@pytest.mark.parametrize(
    ("domain", "reply"),
    [
        ("null.test", NULL_MX),
        ("missing.test", NO_SUCH_DOMAIN),
        ("empty.test", NO_MAIL_HOST),
        ("dangling.test", NO_MAIL_HOST),
        ("best.test", OURSELVES),
        ("servfail.test", LOOKUP_FAILED),
        ("doubt.test", LOOKUP_FAILED),
        ("private.test", ALL_FORBIDDEN),
        ("[127.0.0.1]", ALL_FORBIDDEN),
        ("[IPv6:::1]", ALL_FORBIDDEN),
    ],
)
async def test_no_address(domain: str, reply: Reply) -> None:
    with pytest.raises(NoExchange) as raised:
        await addresses(domain)
    assert raised.value.reply == reply


async def test_equal_preferences_share_the_load() -> None:
    zone = {("equal.test", "MX"): ["10 a.test", "10 b.test", "10 c.test"], **ZONE}
    first = set()
    for _ in range(100):
        hosts = await hosts_of_domain(
            FakeResolver(zone), "equal.test", own_name="mail.test", allowed=()
        )
        assert len(hosts) == 3
        first.add(hosts[0].name)
    assert first == {"a.test", "b.test", "c.test"}


async def test_allowed_networks_open_what_is_forbidden() -> None:
    assert await addresses("private.test", [ip_network("10.0.0.0/8")]) == ["10.1.2.3"]


@pytest.mark.parametrize("host", ["servfail.test", "missing.test", "empty.test"])
async def test_a_next_hop_that_cannot_be_found_never_bounces_mail(host: str) -> None:
    resolver = FakeResolver(ZONE, temporary=TEMPORARY)
    with pytest.raises(NoExchange) as raised:
        await hosts_of_hop(resolver, NextHop(HopProtocol.SMTP, host, 25))
    assert raised.value.reply == HOP_UNKNOWN


async def test_a_named_next_hop_may_be_anywhere() -> None:
    (host,) = await hosts_of_hop(FakeResolver(), NextHop(HopProtocol.SMTP, "127.0.0.1", 25))
    assert host.address == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("8.8.8.8", False),
        ("2a00:1450:4001:80b::200e", False),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("0.0.0.0", True),
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("224.0.0.1", True),
        ("240.0.0.1", True),
        ("255.255.255.255", True),
        ("::", True),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("ff02::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::808:808", False),
        ("64:ff9b:1::808:808", True),
        ("2002:7f00:1::", True),
        ("2002:808:808::", False),
        ("2001:0:1::f5ff:fffe", True),  # Teredo, 10.0.0.1 inside
    ],
)
def test_forbidden_addresses(address: str, forbidden: bool) -> None:
    nothing: list[Any] = []
    assert is_forbidden(ip_address(address), nothing) is forbidden
