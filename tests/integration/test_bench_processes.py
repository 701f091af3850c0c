"""The CPU time of a family of processes counts the ended ones, too."""

import os
import subprocess
import sys

from bench.processes import cpu_seconds, end, end_family, family, memory_octets

_WORK = "import time\nwhile time.process_time() < 0.2: pass"
_WAIT = "import sys; sys.stdin.read()"
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_WORK!r}])
child = subprocess.Popen([sys.executable, "-c", {_WAIT!r}], stdin=subprocess.PIPE)
print("ready", flush=True)
sys.stdin.read()
"""

_STAY = "import time; print('here', flush=True); time.sleep(60)"


def test_a_family() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"ready\n"
        members = family([parent.pid])
        assert len(members) == 2
        assert parent.pid in members
        assert set(members) <= set(family([os.getpid()]))
        assert cpu_seconds([parent.pid]) > 0.15  # the kernel counts in hundredths
        assert memory_octets([parent.pid]) > memory_octets(members[1:]) > 0
    finally:
        parent.stdin.close()
        end(parent)
        parent.stdout.close()


def test_who_outlives_its_family_is_ended_too() -> None:
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_STAY!r}]); {_STAY}"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"here\n"
    assert parent.stdout.readline() == b"here\n"
    end_family(parent)
    # The pipe ends with the last who holds it.
    assert parent.stdout.read() == b""
    parent.stdout.close()
