"""Whose failures a name's are."""

import pytest

from services.ingress.login_guard import account_key

SAME = [
    "me@example.test",
    "ME@Example.Test",
    '"me"@example.test',
    '"m\\e"@example.test',
    '"\\m\\e"@EXAMPLE.test',
]


@pytest.mark.parametrize("name", SAME, ids=range(len(SAME)))
def test_every_way_to_write_an_account_is_that_account(name: str) -> None:
    assert account_key(name) == account_key("me@example.test")


OTHERS = ["you@example.test", '"m e"@example.test', "me@example.org", "me", "", "me@", "\0"]


@pytest.mark.parametrize("name", OTHERS, ids=range(len(OTHERS)))
def test_others_are_others(name: str) -> None:
    assert account_key(name) != account_key("me@example.test")


def test_a_name_that_is_no_address_is_counted_too() -> None:
    assert account_key("Some Body") == account_key("some body") != account_key("somebody")


def test_names_are_not_kept() -> None:
    assert "example" not in account_key("me@example.test")
