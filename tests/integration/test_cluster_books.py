"""The parts of `make cluster-test` that need no cluster: the scripts of its pods, and its books."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.books import books
from tests.cluster.objects import DOMAIN, INSIDE
from tests.support.chart import ROOT

Lines = list[dict[str, Any]]


@pytest.fixture
def sink(tmp_path: Path, free_port: int) -> Iterator[tuple[int, Path]]:
    """The sink as a process: its port and what it writes."""
    log = tmp_path / "sink.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(INSIDE / "sink.py"), str(free_port)], stdout=output
        )
    deadline = time.monotonic() + 30
    while not _listens(free_port):
        assert time.monotonic() < deadline, "the sink did not start"
        time.sleep(0.02)
    yield free_port, log
    process.kill()
    process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            return connection.recv(100).startswith(b"220")
    except OSError:
        return False


def lines(text: str) -> Lines:
    return [json.loads(line) for line in text.splitlines()]


def sent(port: int, seconds: str) -> Lines:
    """What a sender writes that sends straight to the sink."""
    script = [sys.executable, str(INSIDE / "send.py"), f"127.0.0.1:{port}", DOMAIN, seconds, "2"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=50, check=True)
    return lines(done.stdout)


def test_what_the_scripts_write_balances(sink: tuple[int, Path]) -> None:
    port, log = sink
    outcome = sent(port, "3")
    assert outcome[-1] == {"done": True}
    ledger = books(outcome, lines(log.read_text(encoding="utf-8")))
    assert ledger.accepted
    assert ledger.problems(duplicates_allowed=0) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrived: arrived[1:], "accepted and lost"),
        (lambda arrived: [*arrived, arrived[0]], "1 duplicates, 0 allowed"),
        (lambda arrived: [{**arrived[0], "sha256": "0"}, *arrived[1:]], "arrived changed"),
    ],
    ids=["lost", "twice", "changed"],
)
def test_what_is_wrong_is_told(change: Any, said: str) -> None:
    outcome = [
        line
        for name in ("a", "b")
        for line in ({"sent": name, "sha256": f"of {name}"}, {"accepted": name})
    ]
    arrived = [
        {"id": name, "sha256": f"of {name}", "recipient": "", "subject": ""} for name in "ab"
    ]
    assert books(outcome, arrived).problems(duplicates_allowed=0) == []
    assert any(
        said in each for each in books(outcome, change(arrived)).problems(duplicates_allowed=0)
    )


def test_nothing_is_done_to_a_cluster_that_one_says_no_to(tmp_path: Path) -> None:
    """A kubectl that writes down what it is asked stands for the real one."""
    asked = tmp_path / "asked"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$*" >>{asked}\necho production\n', encoding="utf-8")
    kubectl.chmod(0o755)
    keyboard, terminal = os.openpty()
    try:
        os.write(keyboard, b"n\n")
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster"],
            cwd=ROOT,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert done.returncode == 2
    assert "context production" in done.stdout
    assert asked.read_text(encoding="utf-8").splitlines() == ["config current-context"]


def test_a_sender_that_finds_nobody_keeps_trying(free_port: int) -> None:
    began = time.monotonic()
    assert sent(free_port, "1") == [{"done": True}]
    assert time.monotonic() - began >= 1
