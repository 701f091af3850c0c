"""A report on encryption, as a document and as the mail that carries it (pure).

RFC 8460 §4.4 (JSON), §5.1 (file name), §5.3 (mail).
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final

from services.common.mail.address import Mailbox
from services.delivery.tls.report import PolicyKind, Terms
from services.delivery.tls.tally import Policies, Sessions

CONTENT_TYPE: Final = "application/tlsrpt+gzip"


@dataclass(frozen=True, slots=True)
class Submission:
    """Who reports on which time."""

    identity: str
    """Unique for each report; letters, digits and hyphens."""
    hostname: str
    contact: Mailbox
    begin: datetime
    end: datetime

    @property
    def report_id(self) -> str:
        """The identity as the document and the subject show it."""
        return f"{self.identity}@{self.hostname}"


def document(policies: Policies, submission: Submission) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "organization-name": submission.hostname,
        "date-range": {
            "start-datetime": _time(submission.begin),
            "end-datetime": _time(submission.end),
        },
        "contact-info": str(submission.contact),
        "report-id": submission.report_id,
        "policies": [
            _policy(kind, terms, sessions) for (kind, terms), sessions in policies.items()
        ],
    }


def _policy(kind: PolicyKind, terms: Terms, sessions: Sessions) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": kind.value, "policy-domain": terms.domain}
    if terms.lines:
        policy["policy-string"] = list(terms.lines)
    if terms.hosts:
        policy["mx-host"] = list(terms.hosts)
    told: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": sessions.successes,
            "total-failure-session-count": sum(sessions.failures.values()),
        },
    }
    if sessions.failures:
        told["failure-details"] = [
            {
                name: value
                for name, value in (
                    ("result-type", found.result.value),
                    ("receiving-mx-hostname", found.host),
                    ("receiving-ip", found.address),
                    ("failed-session-count", count),
                    ("failure-reason-code", found.detail),
                )
                if value
            }
            for found, count in sessions.failures.items()
        ]
    return told


def compressed(told: dict[str, Any]) -> bytes:
    """The document as it is sent, of type `CONTENT_TYPE`."""
    return gzip.compress(json.dumps(told).encode(), mtime=0)


def report_mail(domain: str, told: bytes, submission: Submission, to: Mailbox) -> bytes:
    """The mail that carries the compressed document to one address."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = str(submission.contact)
    mail["To"] = str(to)
    mail["Date"] = format_datetime(submission.end)
    mail["Subject"] = (
        f"Report Domain: {domain} Submitter: {submission.hostname}"
        f" Report-ID: <{submission.report_id}>"
    )
    mail["Message-ID"] = f"<{submission.report_id}>"
    mail["TLS-Report-Domain"] = domain
    mail["TLS-Report-Submitter"] = submission.hostname
    # The encryption that is reported on may be what keeps other mail away (RFC 8689 §5).
    mail["TLS-Required"] = "No"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(
        f"This is a report on the encryption of mail that {submission.hostname} sent to {domain}\n"
        f"from {_time(submission.begin)} to {_time(submission.end)}, as RFC 8460 describes it.\n"
    )
    maintype, _, subtype = CONTENT_TYPE.partition("/")
    mail.add_attachment(
        told,
        maintype=maintype,
        subtype=subtype,
        filename=f"{submission.hostname}!{domain}!{_seconds(submission.begin)}"
        f"!{_seconds(submission.end)}!{submission.identity}.json.gz",
    )
    mail.replace_header("Content-Type", "multipart/report")
    mail.set_param("report-type", "tlsrpt")
    mail.set_boundary(f"={submission.identity}=")
    return mail.as_bytes()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
