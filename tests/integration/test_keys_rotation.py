"""Keys rotate while mail is signed, and every signature verifies in the DNS of its moment."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from tests.support.dns_server import DnsServer
from tests.support.keys_domain import KeysDomain
from tests.support.keys_process import KeysProcess
from tests.support.programs import program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_WAIT_SECONDS = 60.0


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[KeysDomain]:
    with DnsServer() as first, DnsServer() as second:
        keys = {
            "publication_servers": [first.address, second.address],
            "check_interval": "1s",
        }
        process = KeysProcess(tmp_path, {"keys": keys})
        process.start()
        yield KeysDomain(process, (first, second))
        process.close()


class _Load:
    """Mail that is signed and verified all the time, in a thread."""

    def __init__(self, domain: KeysDomain) -> None:
        self._domain = domain
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.signed: list[str] = []
        """The selectors, in order."""
        self.faults: list[str] = []

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def has_signed(self, key: pb.Key) -> bool:
        """Whether mail was signed with the key."""
        return key.selector in self.signed

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                answer = self._domain.sign()
                self.signed += [signature.selector for signature in answer.signatures]
                if not self._domain.verifies(answer):
                    self.faults.append(f"{len(self.signed)}: unsigned, or it does not verify")
            except Exception as error:  # noqa: BLE001 - the test reports it
                self.faults.append(repr(error))


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def test_by_hand_under_load(domain: KeysDomain) -> None:
    old = domain.active()
    with _Load(domain) as load:
        for _ in range(3):
            _wait(partial(load.has_signed, old))
            new = domain.create(key_type="ed25519" if old.key_type == "rsa" else "rsa")
            domain.publish(new)
            domain.activate(new)
            domain.call("RetireKey", selector=old.selector)
            old = new
        _wait(lambda: load.signed[-1] == old.selector)
    assert load.faults == []
    assert len(set(load.signed)) == 4


def test_by_expiry_under_load(domain: KeysDomain) -> None:
    old = domain.active(key_type="ed25519", expiry={"seconds": 8})
    with _Load(domain) as load:
        _wait(lambda: len(domain.all_keys()) == 2)
        [new] = [key for key in domain.all_keys() if key.selector != old.selector]
        assert "takes over when" in " ".join(new.notes)
        # The day comes and nobody has published anything: the old key goes on, loudly.
        _wait(lambda: "expired key goes on signing" in domain.process.log)
        assert (
            domain.process.sample(
                "gatepost_keys_expiry_seconds", domain=domain.name, selector=old.selector
            )
            or 1
        ) < 0
        assert domain.signers == [old.selector]
        domain.publish(new)
        _wait(lambda: domain.key(old.selector).state == pb.KEY_STATE_RETIRING)
        _wait(lambda: load.signed[-1] == new.selector)
    assert load.faults == []
    log = domain.process.log
    assert f'"record_name": "{new.dns_record.name}"' in log
    assert "publish the record of its successor" in log


def test_a_record_that_vanishes_is_told_and_mail_stays_signed(domain: KeysDomain) -> None:
    key = domain.active()
    labels = {"domain": domain.name, "selector": key.selector}

    def visible() -> float | None:
        return domain.process.sample("gatepost_keys_record_visible", **labels)

    _wait(lambda: visible() == 1)
    domain.withdraw(key)
    _wait(lambda: visible() == 0)
    assert domain.process.sample("gatepost_keys_unpublished_signing_domains") == 1
    assert domain.signers == [key.selector]
    domain.publish(key)
    _wait(lambda: visible() == 1)


def test_metrics_are_in_order(domain: KeysDomain) -> None:
    domain.active(expiry={"seconds": 86400})
    domain.sign()
    metrics = domain.process.metrics
    assert 'gatepost_keys_stored_keys{state="active"} 1.0' in metrics
    signed = domain.process.sample(
        "gatepost_keys_signatures_total", algorithm="rsa-sha256", result="signed"
    )
    assert signed == 1
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=metrics,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
