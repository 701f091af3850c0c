"""spf_mismatch: which identity is judged, what counts as a mismatch, what is told of it."""

import pytest

from services.policy.checks import spf_mismatch
from services.policy.checks.check import Finding, Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means
from tests.support.zone import Key

Zone = dict[Key, list[str]]


async def find(sender: str, *, helo: str = "helo.example", **policy: object) -> Finding:
    zone: Zone = {
        ("helo.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
        ("soft.example", "TXT"): ["v=spf1 ~all"],
        ("none.example", "A"): ["192.0.2.1"],
        ("bad.example", "TXT"): ["v=spf1 moo"],
        ("deny.example", "TXT"): ["v=spf1 -all"],
        ("xn--bcher-kva.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    }
    resolver = FakeResolver(zone, temporary={"slow.example"})
    return await spf_mismatch.find(envelope(sender, helo=helo), means(resolver, policy))


@pytest.mark.parametrize(
    ("sender", "result", "standing"),
    [
        ("x@helo.example", "pass", Standing.CLEAR),
        ("x@bücher.example", "pass", Standing.CLEAR),
        ("x@soft.example", "softfail", Standing.OBJECTS),
        ("x@deny.example", "fail", Standing.OBJECTS),
        ("x@bad.example", "permerror", Standing.OBJECTS),
        ("x@none.example", "none", Standing.CLEAR),
        ("x@slow.example", "temperror", Standing.UNKNOWN),
        # §2.4: the null sender is judged by the HELO name
        ("", "pass", Standing.CLEAR),
        # What is no address has a domain of sorts
        ("two words@deny.example", "fail", Standing.OBJECTS),
        ("@deny.example", "fail", Standing.OBJECTS),
        ("nothing", "none", Standing.CLEAR),
        # §4.3: an empty label at the end is no fault, one elsewhere is
        ("x@helo.example.", "pass", Standing.CLEAR),
        ("x@deny.example.", "fail", Standing.OBJECTS),
        ("x@helo.example..", "none", Standing.CLEAR),
        ("x@helo..example", "none", Standing.CLEAR),
        ("x@.", "none", Standing.CLEAR),
    ],
)
async def test_which_results_are_mismatches(sender: str, result: str, standing: Standing) -> None:
    finding = await find(sender)
    assert (finding.result, finding.standing) == (result, standing)


async def test_which_results_are_mismatches_is_configurable() -> None:
    finding = await find("x@soft.example", spf={"mismatch_results": ["fail"]})
    assert finding.standing is Standing.CLEAR
    finding = await find("x@none.example", spf={"mismatch_results": ["none"]})
    assert finding.standing is Standing.OBJECTS


@pytest.mark.parametrize(
    ("helo", "result"),
    [
        ("[192.0.2.1]", "none"),
        ("192.0.2.1", "none"),
        ("unknown", "none"),
        ("HELO.example", "pass"),
        ("helo.example.", "pass"),
        ("bücher.example", "pass"),
        ("%{h}", "none"),
        ("", "none"),
    ],
)
async def test_the_policy_of_a_helo_name(helo: str, result: str) -> None:
    assert (await find("", helo=helo)).result == result


async def test_a_name_is_told_without_the_dot_at_its_end() -> None:
    finding = await find("x@helo.example.")
    assert ("spf.domain", "helo.example") in finding.evidence
    assert finding.explanation == "helo.example permits 192.0.2.1."


async def test_the_evidence_names_identity_record_and_mechanism() -> None:
    finding = await find("x@helo.example")
    assert finding.evidence == (
        ("spf.identity", "mailfrom"),
        ("spf.domain", "helo.example"),
        ("client.address", "192.0.2.1"),
        ("dns.txt", "helo.example: v=spf1 ip4:192.0.2.1 -all"),
        ("spf.mechanism", "ip4:192.0.2.1"),
    )
