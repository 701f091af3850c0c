"""Token files: what they may hold, rotation, garbage, revocation, and how they are made."""

import logging
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.common.rpc.auth import Role
from services.common.rpc.tokens import (
    MAX_TOKENS_PER_ROLE,
    TOKEN_ROLES,
    TokenFile,
    Tokens,
    ensure_tokens,
    parse_tokens,
    token_file,
)
from services.common.start import StartError

OLD, NEW = "old-token-0123456789", "new-token-0123456789"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("# only a comment\n\n", []),
        (f"{OLD}\n{NEW}\n", [OLD, NEW]),
        (f"  {OLD}  \r\n# note\r\n{NEW}", [OLD, NEW]),
        ("abcdABCD0123-._~+/==\n", ["abcdABCD0123-._~+/=="]),
    ],
)
def test_file(text: str, tokens: list[str]) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("short\n", "line 1 "),
        (f"{OLD}\n{OLD} # note\n", "line 2 "),
        ("x" * 513, "line 1 "),
        ("<html>it is not here</html>", "line 1 "),
        (f"{OLD}\n" * (MAX_TOKENS_PER_ROLE + 1), "more than"),
    ],
)
def test_garbage(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_tokens(text)
    assert OLD not in str(caught.value)


def test_every_role_has_its_file(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    tokens = Tokens(tmp_path)
    for role in TOKEN_ROLES:
        text = token_file(tmp_path, role).read_text()
        assert tokens.roles(text.strip()) == {role}
    assert tokens.roles("unknown-0123456789") == set()
    assert tokens.roles("") == set()
    assert tokens.roles("\udc80") == set()


def test_token_in_two_files_has_both_roles(tmp_path: Path) -> None:
    for role in (Role.SERVICE, Role.OPERATOR):
        token_file(tmp_path, role).write_text(OLD)
    assert Tokens(tmp_path).roles(OLD) == {Role.SERVICE, Role.OPERATOR}


def test_made_once_and_for_us_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "tokens"
    token_file(tmp_path, Role.VIEWER)
    ensure_tokens(directory)
    before = {path: path.read_text() for path in directory.iterdir()}
    assert len(set(before.values())) == 3
    for path in before:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ensure_tokens(directory)
    assert {path: path.read_text() for path in directory.iterdir()} == before


def test_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"cannot create tokens: .*file/tokens"):
        ensure_tokens(tmp_path / "file" / "tokens")


def rejected() -> float | None:
    return REGISTRY.get_sample_value("gatepost_rpc_token_file_rejected", {"role": "service"})


def _unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    path.write_text(f"{NEW}\n" * 10_000)


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" * 20)


@pytest.mark.expect_warnings("token file rejected")
@pytest.mark.parametrize("spoil", [_unreadable, _huge, _binary])
def test_garbage_keeps_the_old_tokens(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    clock, path = Clock(), token_file(tmp_path, Role.SERVICE)
    path.write_text(OLD)
    tokens = Tokens(tmp_path, clock=clock)
    spoil(path)
    for _ in range(3):
        clock.now += 10
        assert tokens.roles(OLD) == {Role.SERVICE}
    assert rejected() == 1
    lines = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(lines) == 1  # told once, not at every look
    assert OLD not in str(vars(lines[0]))
    if path.is_dir():
        path.rmdir()
    path.write_text(NEW)
    clock.now += 10
    assert (tokens.roles(NEW), tokens.roles(OLD)) == ({Role.SERVICE}, set())
    assert rejected() == 0


@pytest.mark.expect_warnings("token file rejected")
@pytest.mark.parametrize("spoil", [_unreadable, _huge, _binary])
def test_the_same_tokens_again_are_no_longer_rejected(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    clock, path = Clock(), token_file(tmp_path, Role.SERVICE)
    path.write_text(OLD)
    tokens = Tokens(tmp_path, clock=clock)
    spoil(path)
    clock.now += 10
    assert tokens.roles(OLD) == {Role.SERVICE}
    assert rejected() == 1
    if path.is_dir():
        path.rmdir()
    path.write_text(OLD)
    clock.now += 10
    assert tokens.roles(OLD) == {Role.SERVICE}
    assert rejected() == 0


@pytest.mark.expect_warnings("token file rejected")
def test_garbage_that_could_not_be_read_for_a_moment_is_still_rejected(tmp_path: Path) -> None:
    clock, path = Clock(), token_file(tmp_path, Role.SERVICE)
    path.write_text(OLD)
    tokens = Tokens(tmp_path, clock=clock)
    for spoil in (_binary, _unreadable, _binary):
        if path.is_dir():
            path.rmdir()
        spoil(path)
        clock.now += 10
        assert tokens.roles(OLD) == {Role.SERVICE}
        assert rejected() == 1


@pytest.mark.expect_warnings("no tokens of this role")
@pytest.mark.parametrize("emptied", [True, False])
def test_empty_or_missing_file_revokes(tmp_path: Path, emptied: bool) -> None:
    clock, path = Clock(), token_file(tmp_path, Role.SERVICE)
    path.write_text(OLD)
    tokens = Tokens(tmp_path, clock=clock)
    if emptied:
        path.write_text("# nobody\n")
    else:
        path.unlink()
    clock.now += 10
    assert tokens.roles(OLD) == set()


def test_files_are_not_read_for_every_call(tmp_path: Path) -> None:
    clock, path = Clock(), token_file(tmp_path, Role.SERVICE)
    path.write_text(OLD)
    tokens = Tokens(tmp_path, clock=clock)
    path.write_text(NEW)
    assert tokens.roles(OLD) == {Role.SERVICE}
    clock.now += 2.0
    assert tokens.roles(OLD) == set()
    assert tokens.roles(NEW) == {Role.SERVICE}


@pytest.mark.expect_warnings("no usable token")
def test_token_for_our_own_calls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path = Clock(), tmp_path / "service.token"
    source = TokenFile(path, clock=clock)
    assert source() == ""
    path.write_text(f"# two while clients change over\n{NEW}\n{OLD}\n")
    clock.now += 2.0
    assert source() == NEW
    path.write_text("garbage\n")
    for _ in range(3):
        clock.now += 2.0
        assert source() == NEW
    assert len(caplog.records) == 2  # missing, then garbage: each told once
