"""Who may write in whose name."""

import pytest

from services.common.config.submission import SenderCheck
from services.common.mail.address import parse_mailbox
from services.common.mail.message import parse_header
from services.ingress.sender_check import from_is_own, sender_is_own

_ACCOUNT = parse_mailbox("you@example.test")

SENDERS = [
    ("you@example.test", True),
    ("YOU@EXAMPLE.TEST", True),
    ("you+tag@example.test", True),
    ("you+@example.test", True),
    ("me@example.test", False),
    ("you@example.org", False),
    ("you+tag@example.org", False),
    ("me+you@example.test", False),
    ('"you+tag"@example.test', True),
    ("you@sub.example.test", False),
]


@pytest.mark.parametrize(("sender", "own"), SENDERS)
def test_senders(sender: str, own: bool) -> None:
    mailbox = parse_mailbox(sender)
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.FULL) is own
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.ENVELOPE) is own
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.OFF)


def test_the_blank_reverse_path_is_nobodys() -> None:
    assert sender_is_own(None, _ACCOUNT, SenderCheck.FULL)


HEADERS = [
    (b"From: you@example.test\r\n", True),
    (b"From: =?utf-8?q?Yo=C3=BC?= <You@Example.Test>\r\n", True),
    (b"From: you+list@example.test\r\n", True),
    (b"From: boss@example.test\r\n", False),
    (b"From: you@example.test, boss@example.test\r\n", False),
    (b"From: you@example.test\r\nFrom: boss@example.test\r\n", False),
    (b"From: you@example.test\r\nfrom : you@example.test\r\n", False),
    (b"From: you@example.test <boss@example.test>\r\n", False),
    (b'From: "you@example.test" <boss@example.test>\r\n', False),
    (b"From: undisclosed\r\n", False),
    (b"From:\r\n", False),
    (b"Subject: none\r\n", False),
]


@pytest.mark.parametrize(("header", "own"), HEADERS)
def test_from(header: bytes, own: bool) -> None:
    block = parse_header(header)
    assert from_is_own(block, _ACCOUNT, SenderCheck.FULL) is own
    assert from_is_own(block, _ACCOUNT, SenderCheck.ENVELOPE)
    assert from_is_own(block, _ACCOUNT, SenderCheck.OFF)
