"""from_mismatch: the author against the reverse-path."""

import pytest

from services.policy.checks import from_mismatch
from services.policy.checks.check import Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import mail, means


@pytest.mark.parametrize(
    ("header", "sender", "result"),
    [
        ("From: ann@example.org\n", "ann@example.org", "pass"),
        ("From: Ann <ANN@Example.org>\n", "ann@example.ORG", "pass"),
        ('From: "a@b.example" <ann@example.org>\n', "ann@example.org", "pass"),
        ("From:\n ann@example.org\n", "ann@example.org", "pass"),
        ("From: ann@example.org\n", "bob@example.org", "fail"),
        ("From: ann@sub.example.org\n", "ann@example.org", "fail"),
        ("From: ann@example.org, bob@example.org\n", "ann@example.org", "fail"),
        ("From: ann@example.org\nFrom: ann@example.org\n", "ann@example.org", "fail"),
        ("From: \n", "ann@example.org", "fail"),
        ("Subject: none\n", "ann@example.org", "fail"),
        ("From: ann@example.org\n", "not an address", "fail"),
        ("From: =?utf-8?q?ann=40example.org?= <x@example.net>\n", "ann@example.org", "fail"),
        ("From: ann@example.org\n", "", "none"),
    ],
)
async def test_authors(header: str, sender: str, result: str) -> None:
    finding = await from_mismatch.find(mail(f"{header}\nhello\n", sender), means(FakeResolver()))
    assert finding.result == result
    assert finding.standing is (Standing.OBJECTS if result == "fail" else Standing.CLEAR)
