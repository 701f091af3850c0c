"""Of each domain it is told whether its mail is signed, and if not, why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.keys.domain_status import DomainSigning, DomainStatus, domain_statuses
from services.keys.duty import parse_duty
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring
from services.keys.private_key import generate
from services.keys.state import KeyState
from services.keys.store import Entry, News, Register

_PRIVATE = generate(KeyType.ED25519, bits=256)


def _entry(domain: str, state: KeyState) -> Entry:
    key = Key(
        domain=domain,
        selector="s1",
        key_type=KeyType.ED25519,
        bits=256,
        public=_PRIVATE.public,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        state=state,
    )
    return Entry(f"s1.{domain}", key, None if state is KeyState.DELETED else _PRIVATE, "1")


def _statuses(*news: News, local: tuple[str, ...] = ()) -> list[DomainStatus]:
    keyring = Keyring()
    for each in news:
        keyring.take(each)
    return domain_statuses(keyring, local)


def test_local_domains_and_those_with_keys_are_told_of() -> None:
    found = _statuses(
        _entry("b.test", KeyState.ACTIVE),
        _entry("c.test", KeyState.PENDING),
        _entry("gone.test", KeyState.DELETED),
        Register({"d.test": parse_duty("s1"), "over.test": parse_duty("-s1")}),
        local=("b.test", "a.test"),
    )
    assert [(each.domain, each.local, each.signing, each.selectors) for each in found] == [
        ("a.test", True, DomainSigning.UNSIGNED, ()),
        ("b.test", True, DomainSigning.SIGNED, ("s1",)),
        ("c.test", False, DomainSigning.UNSIGNED, ()),
        ("d.test", False, DomainSigning.WAITING, ()),
    ]
    problems = {each.domain: " ".join(each.problems) for each in found}
    assert "there is no key" in problems["a.test"]
    assert problems["b.test"] == ""
    assert "no key is active" in problems["c.test"]
    assert "mail waits: the key s1 is not in the store any more" in problems["d.test"]


def test_what_is_wrong_beside_a_key_that_signs_is_told() -> None:
    register = Register({"a.test": parse_duty("s1 s2")})
    [status] = _statuses(_entry("a.test", KeyState.ACTIVE), register)
    assert status.signing is DomainSigning.SIGNED
    assert status.problems == ("the key s2 is not in the store any more",)


@pytest.mark.expect_warnings("cannot be read")
def test_nobody_is_said_to_have_no_keys_while_that_is_not_known() -> None:
    [status] = _statuses(Register({}, "garbage"), local=("a.test",))
    assert status.signing is DomainSigning.WAITING
