"""helo_mismatch: which HELO names lead to the client's address."""

import pytest

from services.policy.checks import helo_mismatch
from services.policy.checks.check import Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means

RESOLVER = FakeResolver(
    {
        ("mx.example.org", "A"): ["192.0.2.1", "192.0.2.2"],
        ("six.example.org", "AAAA"): ["2001:db8::1"],
        ("alias.example.org", "CNAME"): ["mx.example.org"],
        ("text.example.org", "TXT"): ["nothing to see"],
    },
    temporary={"slow.example.org"},
)

CLEAR, OBJECTS, UNKNOWN = Standing.CLEAR, Standing.OBJECTS, Standing.UNKNOWN


@pytest.mark.parametrize(
    ("helo", "client", "result", "standing"),
    [
        ("mx.example.org", "192.0.2.1", "pass", CLEAR),
        ("MX.Example.ORG", "192.0.2.2", "pass", CLEAR),
        ("alias.example.org", "192.0.2.1", "pass", CLEAR),
        ("mx.example.org", "::ffff:192.0.2.1", "pass", CLEAR),
        ("six.example.org", "2001:db8::1", "pass", CLEAR),
        ("six.example.org", "2001:0DB8:0:0::1", "pass", CLEAR),
        ("mx.example.org", "198.51.100.7", "fail", OBJECTS),
        ("mx.example.org", "2001:db8::1", "fail", OBJECTS),
        ("six.example.org", "192.0.2.1", "fail", OBJECTS),
        ("text.example.org", "192.0.2.1", "fail", OBJECTS),
        ("nowhere.example.org", "192.0.2.1", "fail", OBJECTS),
        ("slow.example.org", "192.0.2.1", "temperror", UNKNOWN),
        # Address literals
        ("[192.0.2.1]", "192.0.2.1", "pass", CLEAR),
        ("[192.0.2.1]", "::ffff:192.0.2.1", "pass", CLEAR),
        ("[IPv6:2001:db8::1]", "2001:db8::1", "pass", CLEAR),
        ("[ipv6:2001:DB8:0::1]", "2001:db8::1", "pass", CLEAR),
        ("[IPv6:::ffff:192.0.2.1]", "192.0.2.1", "pass", CLEAR),
        ("[192.0.2.2]", "192.0.2.1", "fail", OBJECTS),
        ("[IPv6:2001:db8::2]", "2001:db8::1", "fail", OBJECTS),
        # Neither a domain nor a literal
        ("", "192.0.2.1", "fail", OBJECTS),
        ("192.0.2.1", "192.0.2.1", "fail", OBJECTS),
        ("[192.0.2.1", "192.0.2.1", "fail", OBJECTS),
        ("[2001:db8::1]", "2001:db8::1", "fail", OBJECTS),
        ("not a name", "192.0.2.1", "fail", OBJECTS),
        ("under_score.example.org", "192.0.2.1", "fail", OBJECTS),
        ("mx.example.org.", "192.0.2.1", "fail", OBJECTS),
        ("localhost", "192.0.2.1", "fail", OBJECTS),
        ("ÿ\r\nX: y", "192.0.2.1", "fail", OBJECTS),
    ],
)
async def test_names(helo: str, client: str, result: str, standing: Standing) -> None:
    finding = await helo_mismatch.find(envelope(client=client, helo=helo), means(RESOLVER))
    assert (finding.result, finding.standing) == (result, standing)


async def test_the_evidence_names_both_sides() -> None:
    finding = await helo_mismatch.find(envelope(client="198.51.100.7"), means(RESOLVER))
    assert finding.evidence == (
        ("client.address", "198.51.100.7"),
        ("helo.name", "mx.example.org"),
        ("dns.a", "mx.example.org: 192.0.2.1, 192.0.2.2"),
    )
    assert finding.explanation == "mx.example.org has other addresses than 198.51.100.7."


async def test_a_mapped_client_is_asked_about_as_ipv4_and_nothing_else_is_asked() -> None:
    resolver = FakeResolver({("mx.example.org", "A"): ["192.0.2.1"]})
    await helo_mismatch.find(envelope(client="::ffff:192.0.2.1"), means(resolver))
    assert resolver.queries == [("mx.example.org", "A")]


async def test_a_hostile_name_stays_on_its_line() -> None:
    finding = await helo_mismatch.find(envelope(helo="a\r\nX-Evil: yes\x00"), means(RESOLVER))
    shown = finding.explanation + "".join(value for _, value in finding.evidence)
    assert shown.isprintable()
