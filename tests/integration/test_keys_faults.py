"""What goes wrong with stored keys does not stop the signing with what was good."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support.keys_domain import KeysDomain, refusal
from tests.support.keys_process import KeysProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_WAIT_SECONDS = 60.0


@pytest.fixture
def process(tmp_path: Path) -> Iterator[KeysProcess]:
    process = KeysProcess(tmp_path)
    process.start()
    yield process
    process.close()


@pytest.fixture
def domain(process: KeysProcess) -> KeysDomain:
    return KeysDomain(process)


def _file(domain: KeysDomain, key: pb.Key) -> Path:
    return domain.process.keys / f"{key.dns_record.name}.json"


def _note(domain: KeysDomain, key: pb.Key) -> str:
    """The most urgent remark."""
    return domain.key(key.selector).notes[0]


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_keys_survive_the_process(domain: KeysDomain) -> None:
    key = domain.active()
    domain.process.kill()
    domain.process.start()
    assert domain.signers == [key.selector]
    assert domain.key(key.selector) == key


def test_a_request_that_comes_twice_makes_one_key(domain: KeysDomain) -> None:
    first = domain.create(request_id="r-1")
    assert domain.create(request_id="r-1") == first
    domain.process.kill()
    domain.process.start()
    assert domain.create(request_id="r-1") == first
    assert domain.all_keys() == [first]
    reused = refusal(lambda: domain.create(domain="other.test", request_id="r-1"))
    assert reused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


def test_a_file_edited_to_garbage(domain: KeysDomain) -> None:
    key = domain.active()
    file = _file(domain, key)
    good = file.read_bytes()
    file.write_bytes(b"garbage")
    _wait(lambda: "damaged" in _note(domain, key))
    assert domain.signers == [key.selector]
    domain.process.kill()
    domain.process.start()
    # Nothing good is left in memory: the mail waits, it is not sent unsigned.
    code, reason, _ = refusal(domain.sign)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_KEY")
    file.write_bytes(good)
    _wait(lambda: "good again" in domain.process.log)
    assert domain.signers == [key.selector]


@pytest.mark.parametrize("damage", ["garbage", "removed"])
def test_a_damaged_key_can_be_retired_and_is_whole_again(domain: KeysDomain, damage: str) -> None:
    key = domain.active()
    file = _file(domain, key)
    if damage == "garbage":
        file.write_bytes(b"garbage")
    else:
        file.unlink()
    _wait(lambda: "damaged" in _note(domain, key))
    domain.call("RetireKey", selector=key.selector, leave_unsigned=True)
    assert domain.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    domain.process.kill()
    domain.process.start()
    assert domain.key(key.selector).state == pb.KEY_STATE_RETIRING
    assert "damaged" not in _note(domain, key)


def test_a_damaged_key_is_not_changed_otherwise(domain: KeysDomain) -> None:
    key = domain.create()
    _file(domain, key).write_bytes(b"garbage")
    _wait(lambda: "damaged" in _note(domain, key))
    for step in (
        lambda: domain.activate(key, override=True),
        lambda: domain.call("DeleteKey", selector=key.selector),
    ):
        assert refusal(step)[1] == "KEY_DAMAGED"
    assert _file(domain, key).read_bytes() == b"garbage"


def test_a_file_removed_and_restored(domain: KeysDomain) -> None:
    key = domain.active()
    file = _file(domain, key)
    good = file.read_bytes()
    file.unlink()
    _wait(lambda: "removed" in _note(domain, key))
    assert domain.signers == [key.selector]
    file.write_bytes(good)
    _wait(lambda: "damaged" not in _note(domain, key))
    assert domain.signers == [key.selector]


def _waits(domain: KeysDomain) -> str:
    """Why the domain's mail waits."""
    code, reason, text = refusal(domain.sign)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_KEY")
    return text


def test_a_sole_key_that_vanished_while_the_service_was_down(domain: KeysDomain) -> None:
    key = domain.active()
    file = _file(domain, key)
    good = file.read_bytes()
    domain.process.kill()
    file.unlink()
    domain.process.start()
    assert f"the key {key.selector} is not in the store any more" in _waits(domain)
    _wait(lambda: "mail waits for a key" in domain.process.log)
    assert domain.process.sample("gatepost_keys_waiting_domains") == 1
    assert domain.process.sample("gatepost_keys_damaged_keys") == 1
    [status] = domain.call("ListDomains", pb.ListDomainsRequest()).domains
    assert (status.domain, status.signing) == (domain.name, pb.DOMAIN_SIGNING_WAITING)
    # Its selector stays used, and it comes back from a backup.
    assert refusal(lambda: domain.create(selector=key.selector))[1] == "SELECTOR_USED"
    file.write_bytes(good)
    _wait(lambda: domain.process.sample("gatepost_keys_waiting_domains") == 0)
    assert domain.signers == [key.selector]


@pytest.fixture
def bereft(tmp_path: Path) -> Iterator[KeysDomain]:
    """A domain whose sole key, `s1`, vanished before the service was started."""
    process = KeysProcess(tmp_path)
    domain = KeysDomain(process)
    process.keys.mkdir(mode=0o700)
    register = process.keys / "signed-domains"
    register.write_text(json.dumps({domain.name: "s1"}))
    register.chmod(0o600)
    process.start()
    yield domain
    process.close()


def test_a_key_that_is_lost_for_good_is_given_up(bereft: KeysDomain) -> None:
    def retire(**fields: bool) -> pb.Key:
        retired: pb.Key = bereft.call("RetireKey", selector="s1", **fields).key
        return retired

    code, reason, _ = refusal(retire)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ACTIVE_KEY")
    assert retire(leave_unsigned=True).state == pb.KEY_STATE_RETIRED
    assert bereft.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    bereft.process.kill()
    bereft.process.start()
    assert bereft.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY
    assert refusal(lambda: bereft.create(selector="s1"))[1] == "SELECTOR_USED"


def test_a_lost_key_is_replaced_by_another(bereft: KeysDomain) -> None:
    other = bereft.active()
    assert bereft.signers == [other.selector]
    # Nobody has to be asked about unsigned mail: the other one signs.
    bereft.call("RetireKey", selector="s1")
    assert bereft.process.sample("gatepost_keys_damaged_keys") == 0
    assert refusal(lambda: bereft.call("RetireKey", selector="s1"))[1] == "KEY_NOT_FOUND"


def test_a_lost_key_comes_back_as_an_import(bereft: KeysDomain) -> None:
    pem = generate(KeyType.ED25519, bits=256).pem()
    imported = bereft.call("ImportKey", selector="s1", private_key_pem=pem).key
    assert "activate it" in _waits(bereft)
    # Nor does it go out unsigned because that one is deleted again.
    deleting = refusal(lambda: bereft.call("DeleteKey", selector="s1"))
    assert deleting[1] == "LAST_ACTIVE_KEY"
    bereft.activate(imported, override=True)
    assert bereft.signers == ["s1"]


def test_an_old_backup_is_no_reason_to_send_unsigned_mail(domain: KeysDomain) -> None:
    key = domain.create()
    backup = _file(domain, key).read_bytes()
    domain.activate(key, override=True)
    domain.process.kill()
    _file(domain, key).write_bytes(backup)
    domain.process.start()
    assert domain.key(key.selector).state == pb.KEY_STATE_PENDING
    assert "is pending now" in _waits(domain)
    domain.activate(key, override=True)
    assert domain.signers == [key.selector]


def test_keys_of_a_release_without_a_register_are_entered(domain: KeysDomain) -> None:
    key = domain.active()
    register = domain.process.keys / "signed-domains"
    domain.process.kill()
    register.unlink()
    domain.process.start()
    _wait(register.exists)
    assert json.loads(register.read_text()) == {domain.name: key.selector}
    assert register.stat().st_mode & 0o777 == 0o600


def test_a_register_that_is_garbage(domain: KeysDomain) -> None:
    key = domain.active()
    register = domain.process.keys / "signed-domains"
    good = register.read_bytes()
    register.write_bytes(b"garbage")
    _wait(lambda: "the register of the domains that sign cannot be read" in domain.process.log)
    domain.process.kill()
    domain.process.start()
    assert domain.signers == [key.selector]
    stranger = KeysDomain(domain.process)
    assert "whether it has keys" in _waits(stranger)
    assert register.read_bytes() == b"garbage"
    register.write_bytes(good)
    _wait(lambda: "sign is good again" in domain.process.log)
    assert stranger.sign().outcome == pb.SIGNING_OUTCOME_NO_KEY


def test_a_key_of_another_process_signs_here_within_seconds(
    domain: KeysDomain, tmp_path: Path
) -> None:
    """Two processes on one directory, as a restored backup or a second replica would look."""
    values = {"keys": {"directory": str(domain.process.keys)}}
    other = KeysProcess(tmp_path / "other", values)
    other.start()
    try:
        key = domain.active()
        there = domain.at(other)
        _wait(lambda: there.signers == [key.selector])
        there.call("RetireKey", selector=key.selector, leave_unsigned=True)
        _wait(lambda: domain.signers == [])
    finally:
        other.close()


def test_the_directory_gone_for_a_while(domain: KeysDomain) -> None:
    key = domain.active()
    keys = domain.process.keys
    keys.rename(keys.with_name("elsewhere"))
    _wait(lambda: "keys cannot be read" in domain.process.log)
    assert domain.signers == [key.selector]
    assert refusal(domain.create)[:2] == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    keys.with_name("elsewhere").rename(keys)
    _wait(lambda: "keys can be read again" in domain.process.log)
    assert domain.create().state == pb.KEY_STATE_PENDING


def test_a_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = {"keys": {"directory": str(tmp_path / "file" / "keys")}}
    process = KeysProcess(tmp_path / "process", config)
    process.spawn()
    assert process.wait() == 1
    assert "keys.directory:" in process.log
    assert "Traceback" not in process.log
