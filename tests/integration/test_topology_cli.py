"""`gatepost topology` beside a NATS server that wants a login, as that of `gatepost up` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer

REPOSITORY = Path(__file__).parents[2]
WITHOUT_PASSWORD = "no_auth_user: gatepost"
LONG_S = 120
"""Only a command that does not wait ends before the test's own time limit."""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    folder = tmp_path_factory.mktemp("nats")
    server = NatsServer(folder)
    config = folder / "nats.conf"
    text = config.read_text(encoding="utf-8")
    assert WITHOUT_PASSWORD in text
    config.write_text(text.replace(WITHOUT_PASSWORD, ""), encoding="utf-8")
    server.start()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path, locked: NatsServer) -> Path:
    """Where a `gatepost up` keeps its data in ./data, with a configuration that has no login."""
    nats = tmp_path / "data" / "nats"
    nats.mkdir(parents=True)
    (nats / "password").write_text("gatepost\n", encoding="ascii")
    (tmp_path / "data" / "endpoints.json").write_text("{}", encoding="ascii")
    (tmp_path / "gatepost.yaml").write_text(
        f"nats: {{urls: ['{locked.url}'], storage_limit: 100MB}}\n", encoding="ascii"
    )
    return tmp_path


def topology(verb: str, *arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "services.cli.main", "topology", verb, *arguments]
    inherited = {k: v for k, v in os.environ.items() if k != "GATEPOST_DATA"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LONG_S / 2,
        check=False,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_folder_of_an_up_is_found_as_by_other_commands(folder: Path) -> None:
    file = str(folder / "gatepost.yaml")
    code, missing, _ = topology("verify", "--config", file, "--json", cwd=folder)
    assert (code, json.loads(missing)["valid"]) == (1, False)
    assert json.loads(missing)["problems"]
    code, made, errors = topology("ensure", "--config", file, "--json", cwd=folder)
    assert code == 0, errors
    assert "QUEUE" in " ".join(json.loads(made)["created"])
    good = (0, "the topology is as it must be\n", "")
    assert topology("verify", "--config", file, cwd=folder) == good
    code, out, _ = topology("verify", "--config", file, "--json", cwd=folder)
    assert (code, json.loads(out)) == (0, {"valid": True, "problems": [], "notes": []})
    data, root = str(folder / "data"), Path("/")
    assert topology("verify", "--config", file, "--data", data, cwd=root) == good
    assert topology("verify", "--config", file, cwd=root, GATEPOST_DATA=data) == good


def test_a_server_that_lets_us_not_in_is_told_once_and_at_once(
    folder: Path, locked: NatsServer
) -> None:
    file, wait = str(folder / "gatepost.yaml"), str(LONG_S)
    code, out, errors = topology("verify", "--config", file, "--wait", wait, cwd=Path("/"))
    assert (code, out) == (3, "")
    [line] = errors.splitlines()
    assert f"NATS at {locked.url} does not let in anybody without a login" in line
    assert "--data" in line


def test_a_server_that_is_not_there_is_one_line(folder: Path) -> None:
    file = folder / "gatepost.yaml"
    file.write_text("nats: {urls: ['nats://127.0.0.1:1']}\n", encoding="ascii")
    code, _, errors = topology("verify", "--config", str(file), "--wait", "0.5", cwd=Path("/"))
    assert code == 3
    assert errors.startswith("gatepost: NATS does not answer at nats://127.0.0.1:1")
    assert len(errors.splitlines()) == 1
