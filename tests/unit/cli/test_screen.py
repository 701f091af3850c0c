"""Of what the services log, a person sees what needs a person; and what to try first."""

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli.up.screen import announce, password_file, show_line, show_running
from services.common.config.model import Config

LINE = {"time": "2026-11-02T12:00:00.000Z", "level": "info", "service": "policy", "msg": "ready"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (json.dumps(LINE), ""),
        (
            json.dumps({**LINE, "level": "warning", "msg": "slow", "seconds": 3}),
            "policy: slow seconds=3",
        ),
        (json.dumps({**LINE, "level": "critical", "msg": "\x1b[2Jx"}), "policy: \\x1b[2Jx"),
        ("[1] 2026/11/02 12:00:00.000000 [INF] Server is ready", ""),
        (
            "[1] 2026/11/02 12:00:00.000000 [ERR] no",
            "policy: [1] 2026/11/02 12:00:00.000000 [ERR] no",
        ),
        ("Traceback (most recent call last):", "policy: Traceback (most recent call last):"),
        ("5", ""),
        ("[]", ""),
        ('{"level": null}', ""),
    ],
)
def test_show_line(capsys: pytest.CaptureFixture[str], line: str, shown: str) -> None:
    show_line("policy", line)
    assert capsys.readouterr().out.rstrip("\n")[9:] == shown


class FullDisk(io.StringIO):
    """What standard output is when it goes into a file for which there is no room."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_shown_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    announce("policy ended with exit code 1; starting it again")


MX_ONLY = {"listeners": [{"name": "mx", "port": 25}]}


@pytest.mark.parametrize(
    ("values", "has_account", "first", "count"),
    [
        pytest.param({}, True, "# send yourself a mail", "Three", id="with the first account"),
        pytest.param({"smtp": MX_ONLY}, True, "# ask what", "Two", id="nowhere to log in"),
        pytest.param(
            {"domains": {"local": ["a.test"]}},
            False,
            "# make an account, to get mail and to submit it; you are asked for its password",
            "Three",
            id="own local domain",
        ),
        pytest.param({}, False, "# make an account, to submit mail;", "Three", id="no domain"),
        pytest.param(
            {"recipients": {"accounts_file": "a.yaml"}}, False, "# ask what", "Two", id="declared"
        ),
    ],
)
def test_the_commands_to_try(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    values: dict[str, Any],
    has_account: bool,
    first: str,
    count: str,
) -> None:
    if has_account:
        password_file(tmp_path).write_text("secret", encoding="ascii")
    show_running(Config.model_validate(values), tmp_path, password="")
    out = capsys.readouterr().out
    commands = out[out.index(f"{count} commands to try, in another terminal:\n\n#") :]
    assert commands.split("\n\n")[1].startswith(first)
    assert commands.count("# ") == {"Two": 2, "Three": 3}[count]
    assert "\n\n\n" not in commands
    if "a.test" in str(values):
        assert f" accounts add you@a.test --data {tmp_path}\n" in commands
