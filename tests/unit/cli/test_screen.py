"""Of what the services log, a person sees what needs a person."""

import json

import pytest

from services.cli.up.screen import show_line

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
