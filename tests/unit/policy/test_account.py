"""Accounts as they are stored: keys that no address can break out of, records that read back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.mail.address import AddressError, make_mailbox, parse_mailbox
from services.policy.account import (
    AccountRecord,
    BadRecord,
    Origin,
    account_key,
    address_of,
    decode,
    domain_prefix,
)

KEY_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_=.")


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("you@example.test", "account.example_test.you"),
        ("You@EXAMPLE.test", "account.example_test.you"),
        ("first.last@example.test", "account.example_test.first=2elast"),
        ("a_b=c@example.test", "account.example_test.a=5fb=3dc"),
        ('"*.>"@example.test', "account.example_test.=2a=2e=3e"),
        ('"a b"@example.test', "account.example_test.a=20b"),
        ("jürgen@bücher.example", "account.xn--bcher-kva_example.j=c3=bcrgen"),
    ],
)
def test_keys(address: str, key: str) -> None:
    assert account_key(parse_mailbox(address, smtputf8=True)) == key
    assert account_key(address_of(key)) == key


@pytest.mark.parametrize("address", ["you@[192.0.2.1]", "postmaster"])
def test_addresses_that_are_no_account(address: str) -> None:
    with pytest.raises(AddressError):
        account_key(parse_mailbox(address))


@pytest.mark.parametrize(
    "key", ["", "account", "created.example_test", "account.example_test.YOU", "account.a.b.c"]
)
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(AddressError):
        address_of(key)


@given(st.text(min_size=1, max_size=40))
def test_any_local_part_stays_one_token_of_its_own(local_part: str) -> None:
    try:
        mailbox = make_mailbox(local_part, "example.test")
    except AddressError:
        return
    try:
        key = account_key(mailbox)
        assert set(key) <= KEY_ALPHABET
        assert key.count(".") == 2
        assert key.startswith(domain_prefix("example.test"))
        assert address_of(key).key == mailbox.key
    except AddressError:
        # Case folding can make a local part too long to be one.
        assert len(mailbox.key.encode()) > len(str(mailbox).encode())


RECORD = AccountRecord(
    "you@example.test",
    Origin.CREATED,
    datetime(2026, 1, 2, tzinfo=UTC),
    datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC),
    "$argon2id$secret",
)


def test_a_record_reads_back() -> None:
    assert decode(RECORD.encode()) == RECORD


def test_a_record_is_shown_without_its_hash() -> None:
    assert "argon" not in repr(RECORD)
    assert "argon" not in f"{RECORD}"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"version": 2}', b'{"version": 1}']
)
def test_what_is_no_record_says_so(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(data)
