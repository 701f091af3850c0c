"""The records of a mail: one per destination, complete, and small enough to be published."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from gatepost.queue.v1.record_pb2 import ContentReference, QueuedMessage
from services.common.config.smtp import Listener, Role
from services.common.mail.address import parse_mailbox
from services.common.mail.envelope import Body, MailParameters, Notify, RecipientParameters, Ret
from services.common.queue.content import MAX_INLINE_OCTETS
from services.common.queue.record import read_record
from services.common.queue.subjects import parse_record_subject
from services.ingress.records import (
    MAX_INLINE_TOTAL_OCTETS,
    MAX_RECIPIENT_OCTETS,
    fits_inline,
    recipient_octets,
    records,
)
from services.ingress.transaction import AcceptedRecipient, Session, Transaction

_NATS_PAYLOAD_OCTETS = 1024 * 1024
_NOW = datetime(2025, 3, 4, tzinfo=UTC)


def _session() -> Session:
    return Session(Listener(name="mx", port=25, role=Role.MX), ip_address("192.0.2.1"), 4711)


def _recipient(
    address: str, *targets: str, notify: frozenset[Notify] = frozenset(), orcpt: str | None = None
) -> AcceptedRecipient:
    return AcceptedRecipient(
        parse_mailbox(address, smtputf8=True),
        RecipientParameters(notify=notify, orcpt=orcpt),
        tuple(parse_mailbox(target, smtputf8=True) for target in targets or (address,)),
    )


def _transaction(*recipients: AcceptedRecipient) -> Transaction:
    transaction = Transaction(
        "abc-1",
        parse_mailbox("sender@example.net"),
        MailParameters(ret=Ret.HEADERS, envid="QQ+2B1", body=Body.EIGHT_BIT_MIME),
    )
    for recipient in recipients:
        transaction.recipients[recipient.mailbox] = recipient
    return transaction


def _made(
    transaction: Transaction, content: bytes | ContentReference = b"text"
) -> dict[str, QueuedMessage]:
    size = len(content) if isinstance(content, bytes) else 1_000_000
    outgoing = records(
        transaction, _session(), content=content, size=size, spam=True, accepted_at=_NOW
    )
    found = {}
    for message in outgoing:
        assert not message.headers
        key = parse_record_subject(message.subject)[1]
        found[key.destination] = read_record(message.data, key)
    return found


def test_one_record_for_each_destination() -> None:
    made = _made(
        _transaction(
            _recipient("a@example.test"), _recipient("b@example.org"), _recipient("c@example.test")
        )
    )
    assert {
        destination: [r.address for r in record.recipients] for destination, record in made.items()
    } == {
        "example.test": ["a@example.test", "c@example.test"],
        "example.org": ["b@example.org"],
    }


def test_a_record_says_all_that_was_said() -> None:
    recipient = _recipient(
        "a@example.test",
        notify=frozenset({Notify.DELAY, Notify.SUCCESS}),
        orcpt="rfc822;A+2Bb@example.test",
    )
    record = _made(_transaction(recipient))["example.test"]
    assert record.sender == "sender@example.net"
    assert (record.ret, record.envid, record.body) == ("HDRS", "QQ+2B1", "8BITMIME")
    assert record.spam
    assert record.client_address == "192.0.2.1"
    assert record.accept_time.ToDatetime(tzinfo=UTC) == _NOW
    assert list(record.recipients[0].notify) == ["SUCCESS", "DELAY"]
    assert record.recipients[0].orcpt == "rfc822;A+2Bb@example.test"


def test_nothing_is_told_to_a_sender_who_is_no_address() -> None:
    transaction = _transaction(_recipient("a@example.test"))
    transaction.sender, transaction.invalid_sender = None, "no..body"
    assert transaction.sender_text == "no..body"
    assert _made(transaction)["example.test"].sender == ""


def test_aliases_are_followed_and_meet_once() -> None:
    made = _made(
        _transaction(
            _recipient("team@example.test", "a@example.test", "b@example.org"),
            _recipient("A@example.test", "a@example.test"),
        )
    )
    assert [r.address for r in made["example.test"].recipients] == ["a@example.test"]
    assert made["example.test"].recipients[0].original_address == "team@example.test"
    assert [r.address for r in made["example.org"].recipients] == ["b@example.org"]


def test_two_spellings_of_a_local_mailbox_are_delivered_once_as_the_first_asked() -> None:
    first = _recipient("You@example.test", "you@example.test", notify=frozenset({Notify.SUCCESS}))
    made = _made(_transaction(first, _recipient("you@example.test")))
    (recipient,) = made["example.test"].recipients
    assert recipient.address == "you@example.test"
    assert recipient.original_address == "You@example.test"
    assert list(recipient.notify) == ["SUCCESS"]


SPELLINGS = [("JSmith", "jsmith"), ("straße", "strasse"), ("café", "cafe\u0301")]


@pytest.mark.parametrize("spellings", SPELLINGS, ids=["case", "sharp-s", "accent"])
def test_two_spellings_elsewhere_are_two_mailboxes(spellings: tuple[str, str]) -> None:
    addresses = [f"{spelling}@remote.example" for spelling in spellings]
    made = _made(_transaction(*map(_recipient, addresses)))
    assert [r.address for r in made["remote.example"].recipients] == addresses


def test_an_address_literal_is_a_destination() -> None:
    assert list(_made(_transaction(_recipient("a@[192.0.2.7]")))) == ["[192.0.2.7]"]


INLINE = [
    (1, 1000, True),
    (MAX_INLINE_OCTETS, 1, True),
    (MAX_INLINE_OCTETS + 1, 1, False),
    (MAX_INLINE_OCTETS, 4, True),
    (MAX_INLINE_OCTETS, 5, False),
    (MAX_INLINE_TOTAL_OCTETS // 1000, 1000, True),
    (MAX_INLINE_TOTAL_OCTETS // 1000 + 1, 1000, False),
]


@pytest.mark.parametrize(("octets", "destinations", "fits"), INLINE)
def test_what_stands_in_the_records(octets: int, destinations: int, fits: bool) -> None:
    assert fits_inline(octets, destinations=destinations) is fits


def test_the_largest_record_can_be_published() -> None:
    transaction = _transaction()
    octets = 0
    for number in range(1000):
        recipient = _recipient(
            f"{number:064d}@{'a' * 60}.{'b' * 60}.example",
            notify=frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY}),
            orcpt="rfc822;" + "x" * 480,
        )
        octets += recipient_octets(recipient)
        if octets > MAX_RECIPIENT_OCTETS:
            break
        transaction.recipients[recipient.mailbox] = recipient
    assert len(transaction.recipients) > 500
    outgoing = records(
        transaction,
        _session(),
        content=b"x" * MAX_INLINE_OCTETS,
        size=MAX_INLINE_OCTETS,
        spam=False,
        accepted_at=_NOW,
    )
    assert [len(message.data) < _NATS_PAYLOAD_OCTETS for message in outgoing] == [True]
