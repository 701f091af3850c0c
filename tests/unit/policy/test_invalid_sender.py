"""invalid_sender: which reverse-paths could get an answer."""

import pytest

from services.policy.checks import invalid_sender
from services.policy.checks.check import Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, means

RESOLVER = FakeResolver(
    {
        ("example.org", "MX"): ["10 mx.example.org"],
        ("xn--bcher-kva.example", "MX"): ["10 mx.example.org"],
        ("null.example.org", "MX"): ["0 ."],
        ("both.example.org", "MX"): ["0 .", "10 mx.example.org"],
        ("host.example.org", "A"): ["192.0.2.9"],
        ("text.example.org", "TXT"): ["v=spf1 -all"],
    },
    temporary={"slow.example.org"},
)


@pytest.mark.parametrize(
    ("sender", "result", "objects"),
    [
        ("ann@example.org", "pass", False),
        ("Ann.Smith+tag@EXAMPLE.org", "pass", False),
        ('"ann smith"@example.org', "pass", False),
        ("ann@bücher.example", "pass", False),
        ("änn@example.org", "pass", False),
        ("ann@[192.0.2.7]", "pass", False),
        ("ann@host.example.org", "pass", False),
        ("ann@text.example.org", "pass", False),
        # RFC 7505 §3: beside others it is no null MX
        ("ann@both.example.org", "pass", False),
        ("", "null", True),
        ("ann@nowhere.example.org", "nxdomain", True),
        ("ann@null.example.org", "nullmx", True),
        ("ann", "syntax", True),
        ("postmaster", "syntax", True),
        ("@example.org", "syntax", True),
        ("ann@", "syntax", True),
        ("ann@@example.org", "syntax", True),
        ("<ann@example.org>", "syntax", True),
        ("ann smith@example.org", "syntax", True),
        ("ann.@example.org", "syntax", True),
        ("ann@example..org", "syntax", True),
        ("ann@-example.org", "syntax", True),
        ("ann@example.org.", "syntax", True),
        ("ann@192.0.2.7", "syntax", True),
        ("ann@[192.0.2.300]", "syntax", True),
        ("a" * 65 + "@example.org", "syntax", True),
        ("ann\r\n@example.org", "syntax", True),
        ("\x00", "syntax", True),
    ],
)
async def test_senders(sender: str, result: str, objects: bool) -> None:
    finding = await invalid_sender.find(envelope(sender), means(RESOLVER))
    assert finding.result == result
    assert finding.standing is (Standing.OBJECTS if objects else Standing.CLEAR)


async def test_a_domain_that_cannot_be_looked_up_is_not_invalid() -> None:
    finding = await invalid_sender.find(envelope("ann@slow.example.org"), means(RESOLVER))
    assert (finding.result, finding.standing) == ("temperror", Standing.UNKNOWN)


async def test_the_evidence_names_the_record() -> None:
    finding = await invalid_sender.find(envelope("ann@null.example.org"), means(RESOLVER))
    assert finding.evidence == (
        ("sender", "<ann@null.example.org>"),
        ("dns.mx", "null.example.org: 0 ."),
    )


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        ("null", "550 5.7.1"),
        ("syntax", "550 5.1.7"),
        ("nxdomain", "550 5.1.8"),
        ("nullmx", "550 5.7.27"),
    ],
)
def test_replies(result: str, reply: str) -> None:
    assert str(invalid_sender.CHECK.refusal_for(result)).startswith(reply)
