"""Ports for servers of tests: no two processes draw the same."""

import subprocess
import sys

DRAW = "from tests.support.ports import free_ports; print(*free_ports({count}), flush=True); {end}"


def test_two_processes_share_no_port() -> None:
    waiting = DRAW.format(count=2000, end="input()")
    with subprocess.Popen(
        [sys.executable, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        ours = set(first.stdout.readline().split())
        drawn = subprocess.run(
            [sys.executable, "-c", DRAW.format(count=2000, end="")],
            capture_output=True,
            text=True,
            check=True,
        )
        first.communicate("\n")
    assert len(ours) == 2000
    assert ours.isdisjoint(drawn.stdout.split())
