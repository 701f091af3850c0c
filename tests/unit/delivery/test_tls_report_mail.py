"""TLSRPT: what is counted, the record that asks for reports, the document and its mail."""

import gzip
import json
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest

from services.common.mail.address import parse_mailbox
from services.delivery.tls import tally
from services.delivery.tls.report import PolicyKind, Terms, TlsReport, TlsResult
from services.delivery.tls.tally import Circumstances, Tally
from services.delivery.tls.tls_report_mail import (
    Submission,
    compressed,
    document,
    report_mail,
)

BEGIN, END = datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 5, tzinfo=UTC)
STS = Terms(
    "dest.test",
    "dest.test",
    ("version: STSv1", "mode: enforce", "mx: *.dest.test", "max_age: 86400"),
    ("*.dest.test",),
)
DANE = Terms("dest.test", "mx1.dest.test", ("3 1 1 00ff",))
SUBMISSION = Submission(
    identity="tls-abc",
    hostname="mail.example.org",
    contact=parse_mailbox("postmaster@example.org"),
    begin=BEGIN,
    end=END,
)


def session(
    result: TlsResult = TlsResult.SUCCESS,
    *,
    kind: PolicyKind = PolicyKind.STS,
    terms: Terms = STS,
    detail: str = "",
    host: str = "mx1.dest.test",
) -> TlsReport:
    return TlsReport(
        f"{host} [192.0.2.1]",
        kind,
        result,
        detail=detail,
        name=host,
        address="192.0.2.1",
        terms=terms,
    )


def test_the_document_has_what_the_standard_names() -> None:
    counted = Tally(BEGIN)
    for _ in range(3):
        counted.add(session())
    counted.add(session(TlsResult.CERTIFICATE_EXPIRED, detail="it has expired"))
    counted.add(session(TlsResult.CERTIFICATE_EXPIRED, detail="it has expired"))
    counted.add(session(kind=PolicyKind.TLSA, terms=DANE))
    assert document(counted.domains["dest.test"], SUBMISSION) == {
        "organization-name": "mail.example.org",
        "date-range": {
            "start-datetime": "2026-03-04T00:00:00Z",
            "end-datetime": "2026-03-05T00:00:00Z",
        },
        "contact-info": "postmaster@example.org",
        "report-id": "tls-abc@mail.example.org",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-domain": "dest.test",
                    "policy-string": list(STS.lines),
                    "mx-host": ["*.dest.test"],
                },
                "summary": {
                    "total-successful-session-count": 3,
                    "total-failure-session-count": 2,
                },
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "receiving-mx-hostname": "mx1.dest.test",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 2,
                        "failure-reason-code": "it has expired",
                    }
                ],
            },
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-domain": "mx1.dest.test",
                    "policy-string": ["3 1 1 00ff"],
                },
                "summary": {
                    "total-successful-session-count": 1,
                    "total-failure-session-count": 0,
                },
            },
        ],
    }


def test_the_mail_carries_the_document() -> None:
    told = {"report-id": "ä"}
    octets = report_mail("dest.test", compressed(told), SUBMISSION, parse_mailbox("tls@dest.test"))
    assert octets.isascii()
    assert b"\n" not in octets.replace(b"\r\n", b"")
    mail = message_from_bytes(octets, policy=default)
    assert mail["TLS-Report-Domain"] == "dest.test"
    assert mail["TLS-Report-Submitter"] == "mail.example.org"
    assert mail["Subject"] == (
        "Report Domain: dest.test Submitter: mail.example.org Report-ID: <tls-abc@mail.example.org>"
    )
    assert mail["To"] == "tls@dest.test"
    assert mail["From"] == "postmaster@example.org"
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    text, attached = mail.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    begin, end = int(BEGIN.timestamp()), int(END.timestamp())
    name = f"mail.example.org!dest.test!{begin}!{end}!tls-abc.json.gz"
    assert attached.get_filename() == name
    assert json.loads(gzip.decompress(attached.get_content())) == told


def test_strangers_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MAX_DOMAINS", 2)
    monkeypatch.setattr(tally, "MAX_POLICIES", 2)
    monkeypatch.setattr(tally, "MAX_CIRCUMSTANCES", 2)
    counted = Tally(BEGIN)
    for number in range(4):
        counted.add(session(terms=Terms(f"d{number}.test", f"d{number}.test")))
        counted.add(session(terms=Terms("d0.test", f"mx{number}.test")))
        counted.add(
            session(
                TlsResult.VALIDATION_FAILURE,
                terms=Terms("d0.test", "d0.test"),
                detail=str(number),
            )
        )
    assert list(counted.domains) == ["d0.test", "d1.test"]
    policies = counted.domains["d0.test"]
    assert [terms.domain for _, terms in policies] == ["d0.test", "mx0.test"]
    sessions = policies[PolicyKind.STS, Terms("d0.test", "d0.test")]
    assert sessions.successes == 1
    assert list(sessions.failures.values()) == [1, 1, 2]
    assert Circumstances(TlsResult.VALIDATION_FAILURE) in sessions.failures


def test_a_next_hop_of_the_operator_is_not_told_of() -> None:
    counted = Tally(BEGIN)
    counted.add(TlsReport("hop", PolicyKind.NONE, TlsResult.SUCCESS))
    assert not counted.domains
