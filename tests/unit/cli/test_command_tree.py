"""Every command of the tree offers the same: its own options, and help."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from typer.testing import CliRunner

from services.cli.main import _COMMANDS, app


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_no_command_offers_to_install_completion(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "--help" in done.output
    assert "completion" not in done.output


WITHOUT_JSON = {
    *("up", "ingress", "delivery", "policy", "keys"),  # they run until they are stopped
    "config schema",  # prints nothing but JSON
}


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something by itself, however deep."""
    below = getattr(command, "commands", None)
    if path and (not below or command.invoke_without_command):
        yield path, command
    if hasattr(command, "list_commands"):
        context = click.Context(click.Command("walk"))
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), f"{path} {name}".strip())


TREE = dict(commands(typer.main.get_command(app)))


def test_the_walk_finds_all_depths() -> None:
    assert {"up", "keys", "keys list", "queue suppressions add", "config check"} <= set(TREE)
    assert set(TREE) >= WITHOUT_JSON


@pytest.mark.parametrize("path", sorted(set(TREE) - WITHOUT_JSON))
def test_every_command_has_an_answer_for_scripts(path: str) -> None:
    assert "--json" in {name for option in TREE[path].params for name in option.opts}


@pytest.mark.parametrize("path", sorted(TREE))
def test_every_command_has_help(path: str) -> None:
    done = CliRunner().invoke(app, [*path.split(), "--help"])
    assert done.exit_code == 0
    assert TREE[path].help


def test_config_check_tells_scripts_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "gatepost.yaml"

    def check(text: str) -> tuple[int, Any]:
        file.write_text(text, encoding="utf-8")
        done = CliRunner().invoke(app, ["config", "check", str(file), "--json"])
        return done.exit_code, json.loads(done.stdout)

    assert check("") == (0, {"valid": True, "problems": [], "notes": []})
    code, noted = check("delivery: {smarthost: {host: a.example}}")
    assert (code, noted["valid"], noted["problems"]) == (0, True, [])
    assert noted["notes"][0].startswith("delivery.smarthost: all mail goes to a.example")
    code, wrong = check("smtp: {hostname: a_b}\nlog: {level: loud}")
    assert (code, wrong["valid"], wrong["notes"]) == (2, False, [])
    hostname, level = wrong["problems"]
    assert hostname.startswith(f"{file}: line 1: smtp.hostname: ")
    assert level.startswith(f"{file}: line 2: log.level: ")
    file.unlink()
    done = CliRunner().invoke(app, ["config", "check", str(file), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["valid"]) == (2, False)
