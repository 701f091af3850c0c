"""What senders are told: read back with the standard library, as a mail program would."""

import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from gatepost.policy.v1.verdict_pb2 import Reply
from gatepost.queue.v1.record_pb2 import DeliveryStatus, QueuedMessage, Recipient
from services.delivery.decision import Action
from services.delivery.notification import MAX_RETURNED_OCTETS, make_report, returns_all

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADER = b"From: me@example.org\r\nSubject: =?utf-8?q?hello?=\r\n"


def recipient(address: str = "them@far.test", **fields: Any) -> Recipient:
    status = DeliveryStatus(
        next_hop="mx.far.test[192.0.2.1]:25",
        reply=Reply(code=550, enhanced_code="5.1.1", text="no such user"),
    )
    status.attempt_time.FromDatetime(NOW)
    return Recipient(
        **{"address": address, "original_address": address, "last_status": status, **fields}
    )


def record(*recipients: Recipient, **fields: Any) -> QueuedMessage:
    made = QueuedMessage(
        message_id="abc-1",
        destination="far.test",
        sender="me@example.org",
        recipients=recipients,
        attempts=3,
        size=1000,
    )
    made.accept_time.FromDatetime(NOW - timedelta(hours=1))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def report(
    made: QueuedMessage, action: Action = Action.FAILED, **more: Any
) -> tuple[EmailMessage, bytes]:
    """The report as a mail program reads it, and its octets."""
    written = make_report(
        made,
        action,
        list(made.recipients),
        **{"returned": HEADER, "hostname": "mail.example.test", "now": NOW, **more},
    )
    parsed = email.message_from_bytes(written.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed, written.content


def facts(parsed: EmailMessage) -> list[dict[str, str]]:
    """The groups of the delivery-status part."""
    part = list(parsed.iter_parts())[1]
    groups = part.get_payload()
    assert isinstance(groups, list)
    return [dict(group.items()) for group in groups]


def test_a_failure_is_reported_to_people_and_programs() -> None:
    parsed, octets = report(record(recipient(orcpt="rfc822;Them+2BX@far.test"), envid="id+2B7"))
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert (parsed["To"], parsed["Auto-Submitted"]) == ("me@example.org", "auto-replied")
    types = [part.get_content_type() for part in parsed.iter_parts()]
    assert types == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    text = next(parsed.iter_parts()).get_content()
    assert "them@far.test" in text
    assert "550 5.1.1 no such user" in text
    message, told = facts(parsed)
    assert message["Reporting-MTA"] == "dns; mail.example.test"
    assert message["Original-Envelope-Id"] == "id+7"
    assert message["Arrival-Date"] == "Fri, 02 Jan 2026 02:04:05 +0000"
    assert told == {
        "Original-Recipient": "rfc822; Them+X@far.test",
        "Final-Recipient": "rfc822; them@far.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.far.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Fri, 02 Jan 2026 03:04:05 +0000",
    }
    assert octets.count(b"\n") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998


def test_each_recipient_is_reported() -> None:
    parsed, _ = report(record(recipient("a@far.test"), recipient("b@far.test")))
    assert [group.get("Final-Recipient") for group in facts(parsed)[1:]] == [
        "rfc822; a@far.test",
        "rfc822; b@far.test",
    ]


@pytest.mark.parametrize(
    ("action", "status", "words"),
    [
        (Action.DELAYED, "5.1.1", "need not send it again"),
        (Action.DELIVERED, "2.0.0", "was delivered"),
        (Action.RELAYED, "2.0.0", "handed on"),
    ],
)
def test_other_reports(action: Action, status: str, words: str) -> None:
    until = NOW + timedelta(hours=20) if action is Action.DELAYED else None
    parsed, _ = report(record(recipient()), action, give_up=until)
    told = facts(parsed)[1]
    assert (told["Action"], told["Status"]) == (action, status)
    assert ("Will-Retry-Until" in told) == (action is Action.DELAYED)
    assert words in " ".join(next(parsed.iter_parts()).get_content().split())


@pytest.mark.parametrize(
    ("ret", "size", "whole"),
    [
        ("FULL", 1000, True),
        ("FULL", MAX_RETURNED_OCTETS + 1, False),
        ("HDRS", 1000, False),
        ("", 1000, False),
    ],
)
def test_what_is_returned(ret: str, size: int, whole: bool) -> None:
    made = record(recipient(), ret=ret, size=size)
    assert returns_all(made, Action.FAILED) is whole
    assert not returns_all(made, Action.DELAYED)
    returned = HEADER + b"\r\nbody\r\n" if whole else HEADER
    parsed, _ = report(made, returned=returned)
    last = list(parsed.iter_parts())[2]
    assert last.get_content_type() == ("message/rfc822" if whole else "text/rfc822-headers")
    assert b"Subject: =?utf-8?q?hello?=" in last.as_bytes()


HOSTILE = "bad\r\nX-Injected: yes\r\n\r\n--boundary \u202eevil\x00"


def test_nothing_from_outside_begins_a_line() -> None:
    status = DeliveryStatus(
        next_hop=HOSTILE, reply=Reply(code=550, enhanced_code="5.0.0", text=HOSTILE)
    )
    _, octets = report(
        record(recipient(original_address=HOSTILE, orcpt="rfc822;a+0D+0Ab", last_status=status))
    )
    assert b"\nX-Injected" not in octets
    assert b"\n--boundary" not in octets
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")


def test_an_internationalized_mail_gets_its_own_types() -> None:
    made = record(recipient("jürgen@far.test"), sender="zoë@example.org", smtputf8=True)
    parsed, octets = report(made)
    assert [part.get_content_type() for part in parsed.iter_parts()][1:] == [
        "message/global-delivery-status",
        "message/global-headers",
    ]
    assert "Final-Recipient: utf-8; jürgen@far.test".encode() in octets


def test_the_same_news_has_the_same_id_and_other_news_another() -> None:
    def identity(made: QueuedMessage, action: Action) -> str:
        return make_report(
            made, action, list(made.recipients), returned=b"", hostname="h.test", now=NOW
        ).id

    one = record(recipient("a@far.test"), recipient("b@far.test"))
    same = record(recipient("b@far.test"), recipient("a@far.test"))
    assert identity(one, Action.FAILED) == identity(same, Action.FAILED)
    others = [
        identity(one, Action.DELAYED),
        identity(record(recipient("a@far.test")), Action.FAILED),
        identity(record(recipient("a@far.test"), message_id="abc-2"), Action.FAILED),
    ]
    assert len({identity(one, Action.FAILED), *others}) == 4
