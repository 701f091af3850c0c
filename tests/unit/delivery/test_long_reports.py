"""Reports about very many recipients: the queue takes them, and everybody is named."""

import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from gatepost.policy.v1.verdict_pb2 import Reply
from gatepost.queue.v1.record_pb2 import DeliveryStatus, QueuedMessage, Recipient
from services.common.mail.reply import MAX_TEXT_OCTETS
from services.delivery.decision import Action
from services.delivery.notification import MAX_REPORT_OCTETS, make_report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADER = b"From: me@example.org\r\nSubject: hello\r\n"
LARGE_HEADER = HEADER + b"X-Filler: some hundreds of kilobytes of this\r\n" * 9_000
LONG = "w" * MAX_TEXT_OCTETS


def address(number: int, octets: int = 20) -> str:
    return f"{number:a>{octets - 9}}@far.test"


def record(
    count: int, *, octets: int = 20, text: str = LONG, orcpt: int = 0, whole: bool = False
) -> QueuedMessage:
    """A mail to so many addresses of so many octets, of which a peer said this text."""
    status = DeliveryStatus(
        next_hop="mx.far.test[192.0.2.1]:25",
        reply=Reply(code=550, enhanced_code="5.1.1", text=text),
    )
    status.attempt_time.FromDatetime(NOW)
    made = QueuedMessage(
        message_id="abc-1",
        destination="far.test",
        sender="me@example.org",
        recipients=[
            Recipient(
                address=address(number, octets),
                original_address=address(number, octets),
                orcpt=f"rfc822;{number:o>{orcpt}}" if orcpt else "",
                last_status=status,
            )
            for number in range(count)
        ],
        attempts=1,
        size=60_000,
        ret="FULL" if whole else "HDRS",
    )
    made.accept_time.FromDatetime(NOW - timedelta(hours=1))
    return made


def written(
    made: QueuedMessage, action: Action = Action.FAILED, *, returned: bytes = HEADER
) -> bytes:
    return make_report(
        made,
        action,
        list(made.recipients),
        returned=returned,
        hostname="mail.example.test",
        now=NOW,
        give_up=NOW if action is Action.DELAYED else None,
    ).content


def parsed(octets: bytes) -> tuple[list[EmailMessage], list[dict[str, str]]]:
    """The parts, and the groups of facts about the recipients, of a report without a fault."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message.defects == []
    parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
    assert [part.defects for part in parts] == [[]] * len(parts)
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    groups = parts[1].get_payload()
    assert isinstance(groups, list)
    return parts, [dict(group.items()) for group in groups[1:]]  # type: ignore[union-attr]


def is_named(made: QueuedMessage, parts: list[EmailMessage], facts: list[dict[str, str]]) -> bool:
    """Whether people and programs find every recipient."""
    everybody = [recipient.address for recipient in made.recipients]
    found = [group["Final-Recipient"].removeprefix("rfc822; ") for group in facts]
    lines = [line.strip() for line in parts[0].get_content().splitlines()]
    return found == everybody == [line for line in lines if line.endswith("@far.test")]


@pytest.mark.parametrize("action", [Action.FAILED, Action.DELAYED])
def test_long_replies_to_a_thousand_recipients_are_cut(action: Action) -> None:
    made = record(1000)
    octets = written(made, action)
    assert len(octets) <= MAX_REPORT_OCTETS
    parts, facts = parsed(octets)
    assert is_named(made, parts, facts)
    for group in facts:
        assert group["Diagnostic-Code"].startswith("smtp; 550 5.1.1 www")
        assert len(group["Diagnostic-Code"]) <= 100
        assert group["Status"] == "5.1.1"
        assert "Last-Attempt-Date" in group
    assert "Subject: hello" in parts[2].get_content()


def test_a_large_header_is_left_out_before_anything_else() -> None:
    made = record(400, orcpt=40)
    octets = written(made, returned=LARGE_HEADER)
    assert len(octets) <= MAX_REPORT_OCTETS
    parts, facts = parsed(octets)
    assert is_named(made, parts, facts)
    assert [part.get_content_type() for part in parts] == ["text/plain", "message/delivery-status"]
    assert {group["Diagnostic-Code"] for group in facts} == {f"smtp; 550 5.1.1 {LONG}"}
    assert facts[0]["Original-Recipient"] == f"rfc822; {0:o>40}"


def test_a_large_header_that_fits_is_returned() -> None:
    parts, _ = parsed(written(record(10), returned=LARGE_HEADER))
    assert parts[2].get_content().count("X-Filler") == 9_000


def test_where_the_mail_does_not_fit_its_header_is_returned() -> None:
    few, more = (len(written(record(count), returned=b"")) for count in (100, 200))
    count = 100 + (MAX_REPORT_OCTETS - 30_000 - few) // ((more - few) // 100)
    made = record(count, whole=True)
    mail = HEADER + b"\r\n" + b"The body of the mail.\r\n" * 2_600
    octets = written(made, returned=mail)
    assert len(octets) <= MAX_REPORT_OCTETS
    parts, facts = parsed(octets)
    assert is_named(made, parts, facts)
    assert parts[2].get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in parts[2].get_content()
    assert b"The body of the mail" not in octets
    assert len(facts[0]["Diagnostic-Code"]) > MAX_TEXT_OCTETS


def test_of_as_many_as_the_ingress_takes_the_names_and_the_outcome_are_left() -> None:
    # Aliases that lead to many: two addresses of 8 octets and 48 more for each, of 512 KiB.
    made = record(8190, octets=14, text="")
    for number, recipient in enumerate(made.recipients):
        recipient.address = recipient.original_address = f"{number}@b.de"
        recipient.last_status.reply.enhanced_code = "5.123.123"
    octets = written(made, returned=LARGE_HEADER)
    assert len(octets) <= MAX_REPORT_OCTETS
    lines = octets.decode().split("\r\n")
    assert [line.strip() for line in lines if line.startswith("  ")] == [
        f"{number}@b.de" for number in range(8190)
    ]
    first = lines.index("Final-Recipient: rfc822; 0@b.de")
    assert lines[first : first + 4 * 8190] == [
        line
        for number in range(8190)
        for line in (
            f"Final-Recipient: rfc822; {number}@b.de",
            "Action: failed",
            "Status: 5.123.123",
            "",
        )
    ]


def test_names_as_long_as_can_be_are_all_left() -> None:
    # Of the 512 KiB for a thousand recipients, 48 octets each are not for names.
    made = record(1000, octets=58, orcpt=350)
    octets = written(made)
    assert len(octets) <= MAX_REPORT_OCTETS
    parts, facts = parsed(octets)
    assert is_named(made, parts, facts)
    assert {group["Status"] for group in facts} == {"5.1.1"}
