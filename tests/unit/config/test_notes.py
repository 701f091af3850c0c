"""What `gatepost config check` says of a valid configuration."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.common.config.model import Config
from services.common.config.notes import missing_files, notes

HOST = {"host": "smart.test"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"delivery": {"smarthost": HOST}}, ["delivery.smarthost: all mail goes to smart.test;"]),
        (
            {"delivery": {"smarthost": HOST, "sender_smarthosts": {"a.test": HOST}}},
            ["delivery.smarthost: all mail but that from delivery.sender_smarthosts goes to smart"],
        ),
        (
            {
                "delivery": {"smarthost": HOST},
                "domains": {"local": ["a.test"], "relay": {"b.test": "smtp:mx.b.test:25"}},
            },
            ["delivery.smarthost: all mail but that to domains.local and to domains.relay goes to"],
        ),
        (
            {"delivery": {"sender_smarthosts": {"a.test": HOST, "b.test": HOST, "c.test": {}}}},
            ["delivery.sender_smarthosts.a.test: its", "delivery.sender_smarthosts.b.test: its"],
        ),
        ({"delivery": {"dane": True}}, ["delivery.dane: TLSA records do not count"]),
        ({"delivery": {"dane": True}, "dns": {"validating": True}}, []),
        ({"delivery": {"dane": False}}, []),
    ],
)
def test_surprises_are_told(values: dict[str, Any], expected: list[str]) -> None:
    told = notes(Config.model_validate(values))
    assert len(told) == len(expected)
    for line, beginning in zip(told, expected, strict=True):
        assert line.startswith(beginning)


def test_config_check_says_that_a_smarthost_sets_policies_aside(tmp_path: Path) -> None:
    file = tmp_path / "gatepost.yaml"
    file.write_text("delivery:\n  smarthost: {host: smart.test}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["config", "check", str(file)])
    assert done.exit_code == 0
    said = done.output.splitlines()
    assert said[0] == f"{file}: valid"
    assert said[1].startswith("note: delivery.smarthost: ")
    assert "MTA-STS" in said[1]
    assert "TLSA" in said[1]


def test_files_that_are_not_here_are_named_with_their_key(tmp_path: Path) -> None:
    here, missing = tmp_path / "here", tmp_path / "missing"
    here.write_text("secret", encoding="ascii")
    host = {**HOST, "username": "me"}
    config = Config.model_validate(
        {
            "smtp": {
                "tls": {
                    "certificate_file": here,
                    "key_file": here,
                    "further": [{"certificate_file": missing, "key_file": here}],
                }
            },
            "recipients": {"accounts_file": missing},
            "delivery": {
                "smarthost": {**host, "password_file": missing},
                "sender_smarthosts": {"a.test": {**host, "token_file": here / "x"}},
            },
        }
    )
    absent = f"{missing} does not exist here; the service needs it where it runs"
    end = "the service needs it where it runs"
    below = f"{here}/x cannot be read here (Not a directory)"
    assert missing_files(config) == [
        f"smtp.tls.further.0.certificate_file: {absent}",
        f"recipients.accounts_file: {absent}",
        f"delivery.smarthost.password_file: {absent}",
        f"delivery.sender_smarthosts.a.test.token_file: {below}; {end}",
    ]


def test_what_gatepost_up_makes_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "gatepost.yaml"
    file.write_text(
        f"delivery: {{smarthost: {{host: a.test, username: b, password_file: {tmp_path}/c}}}}\n"
        f"nats: {{password_file: {tmp_path}/written-by-up}}\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["config", "check", str(file), "--data", str(tmp_path / "data")])
    assert done.exit_code == 0
    missed = [line for line in done.output.splitlines() if "does not exist" in line]
    assert len(missed) == 1
    assert missed[0].startswith(f"note: delivery.smarthost.password_file: {tmp_path}/c does not")
