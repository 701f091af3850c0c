"""Records are read strictly: what cannot be understood as a whole is not acted on in part."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.queue.v1.record_pb2 import (
    ContentReference,
    QueuedMessage,
    Recipient,
    RecipientState,
)
from services.common.queue.record import (
    SCHEMA_VERSION,
    UnreadableRecord,
    deferred,
    held,
    mail_parameters,
    pending,
    read_record,
    ready,
    recipient_parameters,
)
from services.common.queue.subjects import RecordKey

KEY = RecordKey("example.test", "abc-1")
PENDING = RecipientState.RECIPIENT_STATE_PENDING


def record(**fields: Any) -> QueuedMessage:
    made = QueuedMessage(
        schema_version=SCHEMA_VERSION,
        message_id=KEY.message_id,
        destination=KEY.destination,
        sender="me@example.org",
        recipients=[Recipient(address="you@example.test", state=PENDING)],
        inline_content=b"Subject: x\r\n\r\n",
        size=14,
    )
    made.accept_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    for name, value in fields.items():
        if value is None:
            made.ClearField(name)
        elif name == "recipients":
            made.ClearField("recipients")
            made.recipients.extend(value)
        elif name == "content_reference":
            made.content_reference.CopyFrom(value)
        else:
            setattr(made, name, value)
    return made


def to(address: str = "you@example.test", **fields: Any) -> list[Recipient]:
    return [Recipient(**{"address": address, "state": PENDING, **fields})]


def reference(**fields: Any) -> ContentReference:
    return ContentReference(**{"content_id": "abc-1", "chunks": 1, "sha256": bytes(32), **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sender": ""},
        {"sender": '"a b"@example.org'},
        {"recipients": to("zoë@example.test"), "smtputf8": True},
        {"recipients": to(notify=["SUCCESS", "DELAY"], orcpt="rfc822;you@example.test")},
        {"ret": "HDRS", "envid": "id+2B1", "body": "8BITMIME"},
        {"content_reference": reference()},
    ],
    ids=repr,
)
def test_what_was_written_is_read(fields: dict[str, Any]) -> None:
    made = record(**fields)
    written = ready(made)
    assert written.subject == "queue.ready.example~test.abc-1"
    read = read_record(written.data, KEY)
    assert read == made
    assert mail_parameters(read).size == made.size
    assert [recipient_parameters(each) for each in pending(read)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"schema_version": 0}, "schema 0"),
        ({"schema_version": SCHEMA_VERSION + 1}, "schema 2"),
        ({"message_id": "other-1"}, "another subject"),
        ({"destination": "other.test"}, "another subject"),
        ({"accept_time": None}, "no time"),
        ({"recipients": []}, "no recipients"),
        ({"recipients": to("you")}, "no address"),
        ({"recipients": to("you@example.test\r\nRCPT TO:<x@y.test>")}, "no address"),
        ({"recipients": to("you@other.test")}, "another destination"),
        ({"recipients": to(state=0)}, "state 0"),
        ({"recipients": to(state=99)}, "state 99"),
        ({"recipients": to(notify=["PERHAPS"])}, "PERHAPS"),
        ({"recipients": to(orcpt="rfc822;a NOTIFY=NEVER")}, "ORCPT"),
        ({"sender": "me@"}, "no address"),
        ({"sender": "me@example.org> SIZE=1"}, "no address"),
        ({"ret": "SOME"}, "SOME"),
        ({"body": "BINARYMIME"}, "BINARYMIME"),
        ({"envid": "a\r\nb"}, "ENVID"),
        ({"size": 13}, "14 octets, not 13"),
        ({"inline_content": None}, "no content"),
        ({"content_reference": reference(content_id="a.b")}, "id"),
        ({"content_reference": reference(chunks=0)}, "not complete"),
        ({"content_reference": reference(sha256=b"short")}, "not complete"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableRecord, match=reason):
        read_record(record(**fields).SerializeToString(), KEY)


@given(data=st.binary(max_size=200))
def test_octets_of_any_kind_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        read_record(data, KEY)


@given(at=st.integers(0, 200), octet=st.integers(0, 255))
def test_a_record_with_a_wrong_octet_is_read_or_refused(at: int, octet: int) -> None:
    data = bytearray(record().SerializeToString())
    data[at % len(data)] = octet
    with contextlib.suppress(UnreadableRecord):
        read_record(bytes(data), KEY)


def test_what_waits_is_scheduled_and_holds_no_content() -> None:
    due = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    waiting = deferred(record(content_reference=reference()), due)
    assert waiting.subject == "queue.deferred.example~test.abc-1"
    assert waiting.headers == {
        "Nats-Schedule": "@at 2026-01-02T03:04:05Z",
        "Nats-Schedule-Target": "queue.ready.example~test.abc-1",
    }
    assert read_record(waiting.data, KEY).due_time.ToDatetime(tzinfo=UTC) == due
    for write in (lambda made: deferred(made, due), held):
        with pytest.raises(ValueError, match="content"):
            write(record())
    assert held(record(content_reference=reference())).subject == "queue.held.example~test.abc-1"
