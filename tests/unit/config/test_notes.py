"""What `gatepost config check` says of a valid configuration."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.common.config.model import Config
from services.common.config.notes import notes

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
