"""What a family of processes uses: CPU time of the living and the ended, and memory.

The CPU time of a process that ended is in the account of its parent once the parent has waited for
it (proc(5): cutime, cstime), so that the short-lived processes of Postfix are not lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS: Final = 20.0
_KILOBYTE: Final = 1024
# Fields of /proc/PID/stat after the name, counted from 0.
_PARENT: Final = 1
_TIMES: Final = slice(11, 15)  # utime, stime, cutime, cstime
_START: Final = 19


def family(roots: Iterable[int]) -> list[int]:
    """The processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(path.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the families of these processes so far."""
    ticks = 0
    for pid in family(roots):
        ticks += sum(map(int, _stat(pid)[_TIMES]))
    return ticks / _TICKS_PER_SECOND


def memory_octets(roots: Iterable[int]) -> int:
    """Resident memory, with what is shared counted once (proportional set size)."""
    return sum(map(_proportional, family(roots)))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * _KILOBYTE for line in lines if line.startswith("Pss:"))


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def end(process: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> None:
    """A signal to one child of ours, and SIGKILL to its family if that is not enough."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(family([process.pid])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def end_family(process: subprocess.Popen[Any]) -> None:
    """End one child of ours and all that descend from it, the ancestors last."""
    members = {pid: _started(pid) for pid in family([process.pid])}
    for pid in reversed(list(members)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end(process)
    for pid, started in members.items():
        if started and _started(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _started(pid: int) -> str:
    """When it was started; another one that gets its number was not."""
    fields = _stat(pid)
    return fields[_START] if fields else ""


def machine_cpu_seconds() -> float:
    """What all processors of this machine have worked since it started."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_SECOND
