"""What people read in a terminal, and what must not reach it."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gatepost.queue.v1 import event_pb2, queue_pb2
from services.cli.output import octets, plain, printable, span, until
from services.cli.queue import state_word, told
from services.cli.up.supervisor import how_ended

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3599, "59m 59s"),
        (3600, "1h"),
        (90061, "1d 1h"),
        (86400 * 5, "5d"),
        (-5, "0s"),
    ],
)
def test_span(seconds: int, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_340_000, "5.3 MB")]
)
def test_octets(count: int, text: str) -> None:
    assert octets(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(90, "in 1m 30s"), (0, "now"), (-90, "now")])
def test_until(seconds: int, text: str) -> None:
    timestamp = Timestamp()
    timestamp.FromDatetime(NOW + timedelta(seconds=seconds))
    assert until(timestamp, now=NOW) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07 tab\t", "bell\\x07 tab\\x09"),
        ("\u202egnp.exe", "\\x202egnp.exe"),
    ],
)
def test_a_reply_from_outside_cannot_control_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_names_fields_as_the_proto_and_leaves_none_out() -> None:
    entry = queue_pb2.QueueEntry(message_id="a-1", state=queue_pb2.QUEUE_STATE_DEFERRED)
    values = plain(entry)
    assert values["message_id"] == "a-1"
    assert values["wait_reason"] == ""
    assert values["recipients"] == []
    assert values["state"] == "QUEUE_STATE_DEFERRED"


def test_every_state_has_a_word() -> None:
    words = {state_word(value) for value in queue_pb2.QueueState.values()}
    assert words == {"unspecified", "ready", "deferred", "held"}


def test_every_kind_of_event_can_be_told() -> None:

    kinds = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields}
    for kind in kinds:
        event = event_pb2.Event()
        getattr(event, kind).SetInParent()
        if kind == "attempt":
            event.attempt.recipients.add(address="a@b.c")
        assert "".join(told(event)), kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (2, "ended with exit code 2"),
        (-9, "was ended by SIGKILL"),
        (-99, "was ended by signal 99"),
    ],
)
def test_how_a_child_ended(code: int, words: str) -> None:
    assert how_ended(code) == words
