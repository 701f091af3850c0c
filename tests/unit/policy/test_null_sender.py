"""policy.null_sender: which mail with a blank reverse-path is a notification."""

import pytest

from services.policy.checks import invalid_sender, null_sender
from services.policy.checks.check import Standing
from tests.support.resolver import FakeResolver
from tests.support.subjects import envelope, mail, means

REPORTS = {"null_sender": "reports"}


@pytest.mark.parametrize(
    ("kind", "spf", "result"),
    [
        ("multipart/report; report-type=delivery-status; boundary=x", "pass", "report"),
        ('Multipart/Report; boundary=x; Report-Type="Delivery-Status"', "pass", "report"),
        ("multipart/report;\n report-type=disposition-notification", "pass", "report"),
        ("multipart/report; report-type=feedback-report", "pass", "null"),
        ("multipart/report; boundary=x", "pass", "null"),
        ("multipart/reporter; report-type=delivery-status", "pass", "null"),
        ("multipart/report; report-type=delivery-status", "none", "null"),
        ("multipart/report; report-type=delivery-status", "temperror", "null"),
        ("text/plain", "pass", "null"),
    ],
)
async def test_notifications(kind: str, spf: str, result: str) -> None:
    judged = mail(f"From: mailer@example.org\nContent-Type: {kind}\n\nhello\n", sender="")
    judged.spf_result = spf
    finding = await null_sender.find(judged, means(FakeResolver(), REPORTS))
    assert finding.result == result
    assert finding.standing is (Standing.CLEAR if result == "report" else Standing.OBJECTS)


async def test_two_types_are_none() -> None:
    kind = "Content-Type: multipart/report; report-type=delivery-status\n"
    judged = mail(f"{kind}{kind}\nhello\n", sender="")
    judged.spf_result = "pass"
    finding = await null_sender.find(judged, means(FakeResolver(), REPORTS))
    assert finding.standing is Standing.OBJECTS


async def test_before_the_content_nothing_is_decided() -> None:
    finding = await invalid_sender.find(envelope(""), means(FakeResolver(), REPORTS))
    assert (finding.result, finding.standing) == ("null", Standing.CLEAR)
    finding = await invalid_sender.find(envelope(""), means(FakeResolver()))
    assert finding.standing is Standing.OBJECTS


def test_it_is_asked_only_where_it_is_set() -> None:
    applies = null_sender.CHECK.applies
    assert applies is not None
    null, other = mail("a: b\n\n", sender=""), mail("a: b\n\n")
    assert applies(null, means(FakeResolver(), REPORTS))
    assert not applies(other, means(FakeResolver(), REPORTS))
    assert not applies(null, means(FakeResolver()))
