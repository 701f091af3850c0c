"""What the service knows of its keys, whatever the store tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.keys.duty import parse_duty
from services.keys.key import Key, KeyType
from services.keys.keyring import Keyring, NoUsableKeyError
from services.keys.private_key import generate
from services.keys.state import KeyState
from services.keys.store import Broken, Complete, Entry, Gone, Lost, News, Register

_PRIVATE = generate(KeyType.ED25519, bits=256)
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _entry(
    selector: str, state: KeyState = KeyState.ACTIVE, *, domain: str = "a.test", revision: int = 1
) -> Entry:
    key = Key(
        domain=domain,
        selector=selector,
        key_type=KeyType.ED25519,
        bits=256,
        public=_PRIVATE.public,
        created=_NOW,
        state=state,
        revision=revision,
    )
    private = None if state is KeyState.DELETED else _PRIVATE
    return Entry(f"{selector}.{domain}", key, private, f"v{revision}")


def _rsa(selector: str) -> Entry:
    private = generate(KeyType.RSA, bits=1024)
    entry = _entry(selector)
    key = replace(entry.key, key_type=KeyType.RSA, bits=1024, public=private.public)
    return replace(entry, key=key, private=private)


def _signers(keyring: Keyring, domain: str = "a.test") -> list[str]:
    return [signer.selector for signer in keyring.signing(domain).signers]


def _keyring(*news: News) -> Keyring:
    keyring = Keyring()
    for each in news:
        keyring.take(each)
    return keyring


@pytest.mark.parametrize(
    ("states", "signs"),
    [
        ([], []),
        ([KeyState.PENDING], []),
        ([KeyState.PUBLISHED, KeyState.PENDING], []),
        ([KeyState.ACTIVE], ["s0"]),
        ([KeyState.ACTIVE, KeyState.ACTIVE], ["s0", "s1"]),
        ([KeyState.RETIRING, KeyState.ACTIVE], ["s1"]),
        ([KeyState.RETIRED], []),
        ([KeyState.DELETED], []),
    ],
)
def test_active_keys_sign_and_no_others(states: list[KeyState], signs: list[str]) -> None:
    keyring = _keyring(*(_entry(f"s{n}", state) for n, state in enumerate(states)))
    assert _signers(keyring) == signs
    assert _signers(keyring, "other.test") == []


def test_rsa_signs_first() -> None:
    assert _signers(_keyring(_entry("a"), _rsa("z"))) == ["z", "a"]


def test_news_that_is_older_than_what_is_known_changes_nothing() -> None:
    keyring = _keyring(_entry("s1", KeyState.RETIRING, revision=3))
    keyring.take(_entry("s1", KeyState.ACTIVE, revision=2))
    assert _signers(keyring) == []
    # An edit by hand does not count revisions, and is news all the same.
    keyring.take(_entry("s1", KeyState.ACTIVE, revision=3))
    assert _signers(keyring) == ["s1"]


_GARBAGE = Broken("s1.a.test", "it is not JSON", "a.test", "s1")


@pytest.mark.expect_warnings("stored key cannot be read")
def test_a_key_edited_to_garbage_goes_on_signing() -> None:
    keyring = _keyring(_entry("s1"), _GARBAGE)
    assert _signers(keyring) == ["s1"]
    assert "not JSON" in keyring.fault(_entry("s1").key)
    assert keyring.signing("a.test").faults
    keyring.take(_entry("s1"))
    assert keyring.fault(_entry("s1").key) == ""
    assert not keyring.signing("a.test").faults
    assert not keyring.broken


@pytest.mark.expect_warnings("stored key cannot be read")
def test_garbage_from_the_start_makes_mail_wait_unless_another_key_signs() -> None:
    keyring = _keyring(_GARBAGE)
    with pytest.raises(NoUsableKeyError, match="not JSON"):
        keyring.signing("a.test")
    assert _signers(keyring, "other.test") == []
    assert "s1" in keyring.selectors("a.test")
    keyring.take(_entry("s2"))
    assert _signers(keyring) == ["s2"]
    assert keyring.signing("a.test").faults


@pytest.mark.expect_warnings("removed while it signs")
@pytest.mark.parametrize(
    "removal", [Gone("s1.a.test"), Complete(frozenset({"s2.b.test"}))], ids=["gone", "not there"]
)
def test_a_key_that_is_removed_while_it_signs_goes_on_signing(
    removal: Gone | Complete,
) -> None:
    keyring = _keyring(_entry("s1"), _entry("s2", domain="b.test"))
    keyring.take(removal)
    keyring.take(removal)
    assert _signers(keyring) == ["s1"]
    assert "removed" in keyring.fault(_entry("s1").key)
    assert _signers(keyring, "b.test") == ["s2"]
    keyring.take(_entry("s1"))
    assert keyring.fault(_entry("s1").key) == ""


@pytest.mark.expect_warnings("stored key was removed")
@pytest.mark.parametrize("state", [KeyState.PENDING, KeyState.RETIRED])
def test_a_key_that_is_removed_and_does_not_sign_is_forgotten(state: KeyState) -> None:
    keyring = _keyring(_entry("s1", state))
    keyring.take(Gone("s1.a.test"))
    assert keyring.find("a.test", "s1") is None
    assert keyring.present() == []


@pytest.mark.expect_warnings("stored key cannot be read")
def test_garbage_that_is_removed_is_forgotten() -> None:
    keyring = _keyring(_GARBAGE, Gone("s1.a.test"))
    assert _signers(keyring) == []
    assert not keyring.broken


def test_a_deleted_key_leaves_its_selector_behind() -> None:
    keyring = _keyring(_entry("s1", KeyState.DELETED))
    assert keyring.present() == []
    assert keyring.selectors("a.test") == {"s1"}


def test_keys_are_told_in_order() -> None:
    keyring = _keyring(_entry("s2"), _entry("s1"), _entry("s0", domain="b.test"))
    older = _entry("s9")
    keyring.take(replace(older, key=replace(older.key, created=datetime(2025, 1, 1, tzinfo=UTC))))
    assert [key.selector for key in keyring.present()] == ["s9", "s1", "s2", "s0"]


def test_a_request_is_remembered_with_its_key() -> None:
    entry = _entry("s1")
    keyring = _keyring(replace(entry, key=replace(entry.key, request_id="r1")))
    found = keyring.made_by("r1")
    assert found is not None
    assert found.key.selector == "s1"
    assert keyring.made_by("r2") is None


def test_the_store_being_away_is_known_until_it_is_back() -> None:
    keyring = _keyring(_entry("s1"), Complete(frozenset({"s1.a.test"})))
    assert keyring.loaded
    keyring.take(Lost("connection refused"))
    assert keyring.lost == "connection refused"
    assert _signers(keyring) == ["s1"]
    keyring.take(Complete(frozenset({"s1.a.test"})))
    assert keyring.lost == ""


def _register(problem: str = "", **lines: str) -> Register:
    """What the register says; `a` stands for the domain `a.test`."""
    return Register({f"{name}.test": parse_duty(text) for name, text in lines.items()}, problem)


def _complete(*names: str) -> Complete:
    return Complete(frozenset(names))


def test_a_key_that_vanished_before_the_start_makes_mail_wait() -> None:
    keyring = _keyring(_register(a="s1", b=""), _complete())
    with pytest.raises(NoUsableKeyError, match="the key s1 is not in the store any more"):
        keyring.signing("a.test")
    assert _signers(keyring, "b.test") == []
    assert _signers(keyring, "c.test") == []
    assert keyring.damaged == 1
    assert list(keyring.waiting) == ["a.test"]
    # Its selector is known to receivers, and it may come back.
    assert keyring.selectors("a.test") == {"s1"}
    keyring.take(_entry("s1"))
    assert _signers(keyring) == ["s1"]
    assert (keyring.damaged, keyring.waiting) == (0, {})


def test_others_sign_for_one_that_vanished() -> None:
    keyring = _keyring(_entry("s2"), _register(a="s1 s2"), _complete("s2.a.test"))
    assert _signers(keyring) == ["s2"]
    assert keyring.signing("a.test").faults == ("the key s1 is not in the store any more",)
    assert keyring.damaged == 1


def test_a_key_from_an_old_backup_makes_mail_wait_for_its_activation() -> None:
    keyring = _keyring(_entry("s1", KeyState.PENDING), _register(a="s1"))
    with pytest.raises(NoUsableKeyError, match="s1 signed and is pending now: activate it"):
        keyring.signing("a.test")


@pytest.mark.parametrize("state", [KeyState.RETIRING, KeyState.RETIRED, KeyState.DELETED])
def test_a_key_that_was_retired_is_not_waited_for(state: KeyState) -> None:
    keyring = _keyring(_entry("s1", state), _register(a="s1"))
    assert _signers(keyring) == []
    assert keyring.unregistered() == [("a.test", parse_duty(""))]


@pytest.mark.expect_warnings("cannot be read")
def test_while_the_register_cannot_be_read_no_domain_is_said_to_have_no_keys() -> None:
    keyring = _keyring(_entry("s1"), _register("it is not JSON"), _complete("s1.a.test"))
    assert _signers(keyring) == ["s1"]
    with pytest.raises(NoUsableKeyError, match="whether it has keys: it is not JSON"):
        keyring.signing("b.test")
    assert keyring.damaged == 1
    assert keyring.unregistered() == []
    keyring.take(_register())
    assert _signers(keyring, "b.test") == []
    assert keyring.damaged == 0


@pytest.mark.expect_warnings("cannot be read")
def test_what_the_register_said_is_remembered_when_it_vanishes() -> None:
    keyring = _keyring(_register(a="s1", b="", c="s1"), _complete())
    keyring.take(_register("it is gone"))
    assert _signers(keyring, "b.test") == []
    keyring.take(_register(c=""))
    with pytest.raises(NoUsableKeyError):
        keyring.signing("a.test")
    assert _signers(keyring, "c.test") == []
    # And is written again.
    assert keyring.unregistered() == [("a.test", parse_duty("s1"))]


@pytest.mark.expect_warnings("was removed while it signs", "was given up")
def test_a_lost_key_that_was_given_up_elsewhere_is_forgotten_here() -> None:
    keyring = _keyring(_entry("s1"), _register(a="s1"), Gone("s1.a.test"))
    assert _signers(keyring) == ["s1"]
    keyring.take(_register(a="-s1"))
    assert _signers(keyring) == []
    assert keyring.selectors("a.test") == {"s1"}
    assert keyring.damaged == 0


def test_words_in_the_register_that_are_no_selectors_make_mail_wait() -> None:
    with pytest.raises(NoUsableKeyError, match="is no list of selectors"):
        _keyring(_register(a="%%%")).signing("a.test")


@pytest.mark.expect_warnings("stored key cannot be read")
def test_a_key_that_is_garbage_after_a_restart_is_counted_once() -> None:
    with_register = _keyring(_GARBAGE, _register(a="s1"), _complete("s1.a.test"))
    assert with_register.damaged == 1
    with pytest.raises(NoUsableKeyError, match=r"^s1\.a\.test: it is not JSON$"):
        with_register.signing("a.test")
