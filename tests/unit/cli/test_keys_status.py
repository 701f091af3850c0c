"""What `gatepost keys status` says agrees with itself and with its exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from gatepost.keys.v1 import keys_pb2 as pb
from services.cli import keys_status
from services.cli.keys import app

SIGNED, UNSIGNED, WAITING = (
    pb.DOMAIN_SIGNING_SIGNED,
    pb.DOMAIN_SIGNING_UNSIGNED,
    pb.DOMAIN_SIGNING_WAITING,
)


@pytest.mark.parametrize(
    ("is_enabled", "local", "signing", "word", "code"),
    [
        pytest.param(True, True, SIGNED, "signed", 0, id="signed"),
        pytest.param(True, True, UNSIGNED, "unsigned", 10, id="no key"),
        pytest.param(True, False, UNSIGNED, "unsigned", 0, id="no key, not local"),
        pytest.param(True, False, WAITING, "waiting", 10, id="lost key"),
        pytest.param(False, True, SIGNED, "unsigned", 10, id="off, with a key"),
        pytest.param(False, True, UNSIGNED, "unsigned", 10, id="off, without one"),
        pytest.param(False, False, SIGNED, "unsigned", 0, id="off, not local"),
        pytest.param(False, False, WAITING, "unsigned", 0, id="off, lost key"),
    ],
)
def test_the_word_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    is_enabled: bool,
    local: bool,
    signing: pb.DomainSigning.ValueType,
    word: str,
    code: int,
) -> None:
    status = pb.DomainStatus(domain="a.test", local=local, signing=signing, selectors=["foo"])

    @contextmanager
    def connect(*_: Any, **__: Any) -> Iterator[None]:
        yield None

    monkeypatch.setattr(keys_status, "connect", connect)
    monkeypatch.setattr(keys_status, "domain_statuses", lambda _: ([status], is_enabled))
    done = CliRunner().invoke(app, ["status", "--check"])
    assert done.exit_code == code, done.output
    said = done.output.splitlines()
    assert said[1].split() == ["a.test", word, "foo"]
    assert ("no mail is signed" in done.output) is not is_enabled
