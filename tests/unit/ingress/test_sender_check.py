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
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.FULL, separator="+") is own
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.ENVELOPE, separator="+") is own
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.OFF, separator="+")


def test_the_blank_reverse_path_is_nobodys() -> None:
    assert sender_is_own(None, _ACCOUNT, SenderCheck.FULL, separator="+")


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
    assert from_is_own(block, _ACCOUNT, SenderCheck.FULL, separator="+") is own
    assert from_is_own(block, _ACCOUNT, SenderCheck.ENVELOPE, separator="+")
    assert from_is_own(block, _ACCOUNT, SenderCheck.OFF, separator="+")


SEPARATORS = [
    ("you-tag@example.test", "-", True),
    ("you+tag@example.test", "-", False),
    ("you-tag@example.test", "+", False),
    ("you+tag@example.test", "", False),
    ("you@example.test", "", True),
]


@pytest.mark.parametrize(("sender", "separator", "own"), SEPARATORS)
def test_the_separator_is_the_one_that_recipients_have(
    sender: str, separator: str, own: bool
) -> None:
    header = parse_header(f"From: {sender}\r\n".encode())
    mailbox = parse_mailbox(sender)
    assert sender_is_own(mailbox, _ACCOUNT, SenderCheck.FULL, separator=separator) is own
    assert from_is_own(header, _ACCOUNT, SenderCheck.FULL, separator=separator) is own
