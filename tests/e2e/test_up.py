"""`gatepost up` itself: what it says, how it stops, and what it says when it cannot start."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.installation import GATEPOST, Installation


@pytest.fixture
def fresh(folder: Path) -> Installation:
    return Installation(folder)


def test_it_runs_twice_in_a_row_and_stops_cleanly(fresh: Installation) -> None:
    for _ in range(2):
        fresh.start()
        pids = [fresh.pid(name) for name in ("nats", "ingress", "policy", "delivery", "keys")]
        screen = "".join(fresh.output)
        assert str(fresh.ports["mx"]) in screen
        assert "CheckEnvelope" in screen
        assert "queue list" in screen
        assert fresh.stop() == 0, "".join(fresh.output)
        assert "Traceback" not in "".join(fresh.output)
        assert [pid for pid in pids if _lives(pid)] == []
        fresh.output.clear()


def test_ctrl_c_pressed_again_and_again_is_an_end_in_order(fresh: Installation) -> None:
    fresh.start()
    os.kill(fresh.pid("delivery"), signal.SIGSTOP)  # what hangs does not keep it from ending
    code = fresh.interrupt()
    said = "".join(fresh.output)
    assert code == 0, said
    words = ["stopping; press Ctrl-C again to end at once", "ending at once", "stopped"]
    assert [each for each in words if said.count(f" {each}\n") != 1] == [], said
    assert fresh.output[-1].endswith(" stopped\n"), said
    assert "Traceback" not in said


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_secrets_are_readable_by_their_owner_alone(fresh: Installation) -> None:
    fresh.start()
    try:
        for name in ("tokens/operator.token", "nats/password", "nats/nats.conf", "tls/tls.key"):
            assert (fresh.data / name).stat().st_mode & 0o077 == 0, name
        assert fresh.data.stat().st_mode & 0o077 == 0
    finally:
        fresh.close()


def test_the_children_end_when_the_supervisor_is_killed(fresh: Installation) -> None:
    fresh.start()
    pids = [fresh.pid(name) for name in ("nats", "ingress", "policy", "delivery", "keys")]
    assert fresh._process is not None
    fresh._process.send_signal(signal.SIGKILL)
    fresh._process.wait(10)
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if _lives(pid)] == []
    fresh.close()


def test_a_file_that_is_not_there_is_said_at_the_start(folder: Path) -> None:
    host = {"host": "127.0.0.1", "username": "me", "password_file": str(folder / "missing")}
    with contextlib.closing(Installation(folder, {"delivery": {"smarthost": host}})) as fresh:
        fresh.start()
        notes = [line for line in fresh.output if " note: " in line]
    assert len(notes) == 1, notes
    assert f"delivery.smarthost.password_file: {folder}/missing does not exist here" in notes[0]


def failure(installation: Installation) -> str:
    with pytest.raises(RuntimeError) as caught:
        installation.start()
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_busy_port_is_one_clear_line(fresh: Installation) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", fresh.ports["policy"]))
        other.listen()
        line = failure(fresh)
    assert line.startswith("gatepost: services.policy.grpc: ")
    assert f"127.0.0.1:{fresh.ports['policy']} is in use" in line


def test_a_broken_config_is_one_clear_line(fresh: Installation) -> None:
    fresh.configure({"smtp": {"max_message_size": "huge"}})
    line = failure(fresh)
    assert str(fresh.config_file) in line
    assert "smtp.max_message_size: a size is a number with a unit" in line


def test_a_folder_in_use_is_one_clear_line(fresh: Installation, tmp_path_factory) -> None:
    second = Installation(tmp_path_factory.mktemp("second"))
    second.data = fresh.data
    fresh.start()
    try:
        assert "another `gatepost up` uses it" in failure(second)
    finally:
        fresh.close()


def test_a_missing_permission_is_one_clear_line(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    # Root may write everywhere, unless it has no capabilities.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*powerless, *GATEPOST, "up", "--data", str(locked / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"gatepost: --data {locked}/data: cannot be written: Permission denied\n"
