"""SPF: RFC 7208's own examples (Appendix A), its limits (§4.6.4), what a stranger may publish."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from services.common.dns import Answer, RecordType
from services.policy.spf_evaluation import SpfOutcome, SpfRequest, check_host
from tests.support.resolver import FakeResolver
from tests.support.zone import Key

Zone = dict[Key, list[str]]

# RFC 7208 Appendix A
EXAMPLE_COM: Zone = {
    ("example.com", "MX"): ["10 mail-a.example.com", "20 mail-b.example.com"],
    ("example.com", "A"): ["192.0.2.10", "192.0.2.11"],
    ("amy.example.com", "A"): ["192.0.2.65"],
    ("bob.example.com", "A"): ["192.0.2.66"],
    ("mail-a.example.com", "A"): ["192.0.2.129"],
    ("mail-b.example.com", "A"): ["192.0.2.130"],
    ("www.example.com", "CNAME"): ["example.com"],
    ("example.org", "MX"): ["10 mail-c.example.org"],
    ("mail-c.example.org", "A"): ["192.0.2.140"],
    ("10.2.0.192.in-addr.arpa", "PTR"): ["example.com"],
    ("65.2.0.192.in-addr.arpa", "PTR"): ["amy.example.com"],
    ("140.2.0.192.in-addr.arpa", "PTR"): ["mail-c.example.org"],
    ("4.0.0.10.in-addr.arpa", "PTR"): ["bob.example.com"],
}


async def evaluate(
    record: str,
    client: str = "192.0.2.10",
    *,
    zone: Mapping[Key, Sequence[str]] = EXAMPLE_COM,
    sender: str = "strong-bad@example.com",
    temporary: set[str] | None = None,
) -> SpfOutcome:
    local_part, _, domain = sender.rpartition("@")
    request = SpfRequest(
        client=client, local_part=local_part, domain=domain, helo="helo.test", receiver="us.test"
    )
    records = {**zone, (domain, "TXT"): [record]}
    return await check_host(request, FakeResolver(records, temporary=temporary or ()))


@pytest.mark.parametrize(
    ("record", "client", "result"),
    [
        # Appendix A.1 to A.3
        ("v=spf1 +all", "203.0.113.1", "pass"),
        ("v=spf1 a -all", "192.0.2.10", "pass"),
        ("v=spf1 a -all", "192.0.2.11", "pass"),
        ("v=spf1 a -all", "192.0.2.65", "fail"),
        ("v=spf1 a:example.org -all", "192.0.2.10", "fail"),
        ("v=spf1 mx -all", "192.0.2.129", "pass"),
        ("v=spf1 mx -all", "192.0.2.130", "pass"),
        ("v=spf1 mx -all", "192.0.2.10", "fail"),
        ("v=spf1 mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx mx:example.org -all", "192.0.2.129", "pass"),
        ("v=spf1 mx mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", "pass"),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.143", "pass"),
        ("v=spf1 ptr -all", "192.0.2.10", "pass"),
        ("v=spf1 ptr -all", "192.0.2.65", "pass"),
        ("v=spf1 ptr -all", "192.0.2.140", "fail"),
        ("v=spf1 ptr -all", "10.0.0.4", "fail"),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", "fail"),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", "pass"),
        # §4.6 and §5, what else decides
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::7", "pass"),
        ("v=spf1 ip6:2001:db8::/32 -all", "192.0.2.1", "fail"),
        ("v=spf1 ip4:192.0.2.0/24 -all", "::ffff:192.0.2.7", "pass"),
        ("v=spf1 ?all", "192.0.2.1", "neutral"),
        ("v=spf1 ~all", "192.0.2.1", "softfail"),
        ("v=spf1", "192.0.2.1", "neutral"),
        ("V=SPF1 -ALL", "192.0.2.1", "fail"),
        ("v=spf10 -all", "192.0.2.1", "none"),
        ("v=spf2.0/pra -all", "192.0.2.1", "none"),
        ("v=spf1 -all moo", "192.0.2.1", "permerror"),
        ("v=spf1 ip4:192.0.2.300 -all", "192.0.2.1", "permerror"),
        ("v=spf1 a/33 -all", "192.0.2.1", "permerror"),
        ("v=spf1 include:nowhere.example -all", "192.0.2.1", "permerror"),
        ("v=spf1 redirect=nowhere.example", "192.0.2.1", "permerror"),
        ("v=spf1 include:example.com -all", "192.0.2.1", "permerror"),
        ("v=spf1 exists:%{ir}.%{v}.arpa -all", "192.0.2.10", "fail"),
        ("v=spf1 a:%{d2} -all", "192.0.2.10", "pass"),
        ("v=spf1 exists:%{l1r-}.%{d} -all", "192.0.2.1", "fail"),
        ("v=spf1 exists:%{c}.example.com -all", "192.0.2.1", "permerror"),
    ],
)
async def test_records(record: str, client: str, result: str) -> None:
    assert (await evaluate(record, client)).result == result


# RFC 7208 Appendix A.2 to A.4, with records of several domains
SEVERAL: Zone = {
    **EXAMPLE_COM,
    ("example.org", "TXT"): ["v=spf1 include:example.com include:example.net -all"],
    ("example.com", "TXT"): ["v=spf1 mx -all"],
    ("example.net", "TXT"): ["v=spf1 mx -all"],
    ("example.net", "MX"): ["10 mail-c.example.org"],
    ("la.example.org", "TXT"): ["v=spf1 redirect=example.org"],
    ("mary.mobile-users._spf.example.com", "A"): ["127.0.0.2"],
    ("fred.mobile-users._spf.example.com", "A"): ["127.0.0.2"],
    ("15.15.168.192.joel.remote-users._spf.example.com", "A"): ["127.0.0.2"],
    ("10.2.0.192.in-addr._spf.example.com", "A"): ["127.0.0.2"],
}
DNSBL_STYLE = (
    "v=spf1 mx include:mobile-users._spf.%{d} include:remote-users._spf.%{d} -all",
    {
        ("mobile-users._spf.example.com", "TXT"): ["v=spf1 exists:%{l1r+}.%{d}"],
        ("remote-users._spf.example.com", "TXT"): ["v=spf1 exists:%{ir}.%{l1r+}.%{d}"],
    },
)
# A.4: the client has to be in a network and to have a name in the domain.
BOTH_NEEDED = (
    "v=spf1 -include:ip4._spf.%{d} -include:ptr._spf.%{d} +all",
    {
        ("ip4._spf.example.com", "TXT"): ["v=spf1 -ip4:192.0.2.0/24 +all"],
        ("ptr._spf.example.com", "TXT"): ["v=spf1 -ptr:example.com +all"],
    },
)


@pytest.mark.parametrize(
    ("record", "sender", "client", "result"),
    [
        (SEVERAL["example.org", "TXT"][0], "x@example.org", "192.0.2.130", "pass"),
        (SEVERAL["example.org", "TXT"][0], "x@example.org", "192.0.2.140", "pass"),
        (SEVERAL["example.org", "TXT"][0], "x@example.org", "192.0.2.10", "fail"),
        ("v=spf1 redirect=example.org", "x@la.example.org", "192.0.2.140", "pass"),
        ("v=spf1 redirect=example.org", "x@la.example.org", "192.0.2.10", "fail"),
        (DNSBL_STYLE[0], "mary@example.com", "203.0.113.1", "pass"),
        (DNSBL_STYLE[0], "fred+list@example.com", "203.0.113.1", "pass"),
        (DNSBL_STYLE[0], "joel@example.com", "192.168.15.15", "pass"),
        (DNSBL_STYLE[0], "joel@example.com", "192.168.15.16", "fail"),
        (DNSBL_STYLE[0], "ann@example.com", "203.0.113.1", "fail"),
        (BOTH_NEEDED[0], "x@example.com", "192.0.2.10", "pass"),
        (BOTH_NEEDED[0], "x@example.com", "192.0.2.140", "fail"),
        (BOTH_NEEDED[0], "x@example.com", "10.0.0.4", "fail"),
    ],
)
async def test_appendix_a_with_several_records(
    record: str, sender: str, client: str, result: str
) -> None:
    zone: Zone = {**SEVERAL, **DNSBL_STYLE[1], **BOTH_NEEDED[1]}
    assert (await evaluate(record, client, sender=sender, zone=zone)).result == result


@pytest.mark.parametrize(
    ("macros", "client", "name"),
    [
        # §7.4
        ("%{s}.test", "192.0.2.3", "strong-bad@email.example.com.test"),
        ("%{o}", "192.0.2.3", "email.example.com"),
        ("%{d4}", "192.0.2.3", "email.example.com"),
        ("%{d2}", "192.0.2.3", "example.com"),
        ("%{dr}", "192.0.2.3", "com.example.email"),
        ("%{d2r}", "192.0.2.3", "example.email"),
        ("%{l}.test", "192.0.2.3", "strong-bad.test"),
        ("%{l-}.test", "192.0.2.3", "strong.bad.test"),
        ("%{lr}.test", "192.0.2.3", "strong-bad.test"),
        ("%{lr-}.test", "192.0.2.3", "bad.strong.test"),
        ("%{l1r-}.test", "192.0.2.3", "strong.test"),
        ("%{ir}.%{v}._spf.%{d2}", "192.0.2.3", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "192.0.2.3", "bad.strong.lp._spf.example.com"),
        (
            "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
            "192.0.2.3",
            "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
        ),
        (
            "%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
            "192.0.2.3",
            "3.2.0.192.in-addr.strong.lp._spf.example.com",
        ),
        (
            "%{d2}.trusted-domains.example.net",
            "192.0.2.3",
            "example.com.trusted-domains.example.net",
        ),
        (
            "%{ir}.%{v}._spf.%{d2}",
            "2001:db8::cb01",
            f"1.0.b.c.{'0.' * 20}8.b.d.0.1.0.0.2.ip6._spf.example.com",
        ),
        # §7.1: a percent sign, a space, a space as URLs write it; §7.3: letters in upper case
        ("a%%b%_%_c%-d.test", "192.0.2.3", "a%b  c%20d.test"),
        ("%{H}", "192.0.2.3", "helo.test"),
        ("%{L}.test", "192.0.2.3", "strong-bad.test"),
    ],
)
async def test_macros(macros: str, client: str, name: str) -> None:
    zone: Zone = {(name, "A"): ["127.0.0.2"]}
    outcome = await evaluate(
        f"v=spf1 exists:{macros} -all", client, zone=zone, sender="strong-bad@email.example.com"
    )
    assert (outcome.result, outcome.answers[-1].name) == ("pass", name)


@pytest.mark.parametrize(
    "domain", ["", "localhost", "a..example", "[192.0.2.1]", "a" * 64 + ".example", "x." * 127]
)
async def test_what_is_no_domain_has_no_policy(domain: str) -> None:
    outcome = await evaluate("v=spf1 -all", sender=f"x@{domain}")
    assert outcome.result == "none"


async def test_two_records_are_an_error() -> None:
    zone: Zone = {("two.example", "TXT"): ["v=spf1 -all", "v=spf1 +all", "unrelated"]}
    request = SpfRequest(
        client="192.0.2.1", local_part="x", domain="two.example", helo="", receiver="us.test"
    )
    assert (await check_host(request, FakeResolver(zone))).result == "permerror"


async def test_a_record_in_several_strings_is_one_text() -> None:
    record = '"v=spf1 ip4:192." "0.2.10 -all"'
    assert (await evaluate(record)).result == "pass"


@pytest.mark.parametrize(
    ("terms", "result"), [(10, "fail"), (11, "permerror")], ids=["ten", "eleven"]
)
async def test_ten_terms_may_look_something_up(terms: int, result: str) -> None:
    record = " ".join(["v=spf1", *["a:www.example.com"] * terms, "-all"])
    assert (await evaluate(record, "203.0.113.1")).result == result


@pytest.mark.parametrize(("voids", "result"), [(2, "fail"), (3, "permerror")])
async def test_two_lookups_may_come_back_empty(voids: int, result: str) -> None:
    names = [f"a:nothing{number}.example.com" for number in range(voids)]
    outcome = await evaluate(" ".join(["v=spf1", *names, "-all"]), "203.0.113.1")
    assert outcome.result == result


@pytest.mark.parametrize(("exchanges", "result"), [(10, "fail"), (11, "permerror")])
async def test_ten_exchanges_may_be_named(exchanges: int, result: str) -> None:
    zone: Zone = {("m.example", "MX"): [f"{n} h{n}.m.example" for n in range(exchanges)]}
    zone |= {(f"h{n}.m.example", "A"): ["198.51.100.1"] for n in range(exchanges)}
    outcome = await evaluate("v=spf1 mx -all", sender="x@m.example", zone=zone)
    assert outcome.result == result


async def test_a_lookup_that_fails_is_temporary_unless_a_term_before_it_matched() -> None:
    slow = {"slow.example.com"}
    assert (await evaluate("v=spf1 a:slow.example.com -all", temporary=slow)).result == "temperror"
    assert (await evaluate("v=spf1 a a:slow.example.com", temporary=slow)).result == "pass"


async def test_an_address_without_a_name_does_not_match_ptr_even_if_dns_fails() -> None:
    outcome = await evaluate("v=spf1 ptr -all", temporary={"10.2.0.192.in-addr.arpa"})
    assert outcome.result == "fail"


async def test_the_explanation_is_in_the_words_of_the_domain() -> None:
    zone: Zone = {("why.example", "TXT"): ["%{i} is not one of %{d}'s"]}
    outcome = await evaluate("v=spf1 -all exp=why.example", zone=zone)
    assert outcome.explanation == "192.0.2.10 is not one of example.com's"


@pytest.mark.parametrize(
    "text", [[], ["one", "two"], ["%{x} is no macro"], ['"\\255\\254"'], ["x" * 5000]]
)
async def test_an_explanation_that_cannot_be_used_is_none(text: list[str]) -> None:
    outcome = await evaluate(
        "v=spf1 -all exp=why.example", zone={("why.example", "TXT"): text} if text else {}
    )
    assert (outcome.result, outcome.explanation) == ("fail", "")


async def test_the_explanation_is_not_looked_up_for_a_pass() -> None:
    outcome = await evaluate("v=spf1 +all exp=why.example")
    assert [(answer.name, answer.rdtype) for answer in outcome.answers] == [("example.com", "TXT")]


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 " + "ip4:192.0.2.1 " * 400,
        "v=spf1 a:" + "a" * 64 + ".example -all",
        "v=spf1 a:" + "a-" * 1500,
    ],
    ids=["large", "label", "hyphens"],
)
async def test_records_that_would_cost_too_much_are_errors(record: str) -> None:
    assert (await evaluate(record, "203.0.113.1")).result == "permerror"


async def test_a_tree_of_large_records_is_an_error() -> None:
    large = "v=spf1 " + "ip4:198.51.100.1 " * 200
    zone: Zone = {(f"{n}.tree.example", "TXT"): [large] for n in range(8)}
    record = " ".join(["v=spf1", *(f"include:{n}.tree.example" for n in range(8)), "-all"])
    outcome = await evaluate(record, "203.0.113.1", zone=zone)
    assert (outcome.result, outcome.problem) == (
        "permerror",
        "SPF Permanent Error: The records are too large",
    )


class SlowResolver(FakeResolver):
    """Answers nothing from memory until it was asked, and lets others run before it answers."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        await asyncio.sleep(0)
        return await super().query(name, rdtype)


async def test_names_in_a_record_are_looked_up_side_by_side_and_once() -> None:
    zone = {
        ("wide.example", "TXT"): ["v=spf1 include:a.example include:b.example include:c.example"],
        **{(f"{n}.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"] for n in "abc"},
    }
    resolver = SlowResolver(zone)
    request = SpfRequest(
        client="192.0.2.1", local_part="x", domain="wide.example", helo="", receiver="us.test"
    )
    outcome = await check_host(request, resolver)
    assert outcome.result == "neutral"
    assert sorted(resolver.queries) == [(f"{n}.example", "TXT") for n in ("a", "b", "c", "wide")]
