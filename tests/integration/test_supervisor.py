"""What a supervised process says, from its pipe to its log and to whoever listens."""

import asyncio
import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli.up.supervisor import LAST_LINES, LINE_OCTETS, Child, Output

LINES = 20_000


async def run(program: str, data: Path, *, timer_slack_us: int = 0) -> tuple[Child, list[str]]:
    """A child that ran once, and the lines that were heard of it."""
    heard: list[str] = []
    child = Child(
        "talker",
        [sys.executable, "-c", program],
        data=data,
        on_line=lambda _, line: heard.append(line),
        announce=lambda _: child.kill(),  # it has ended, and shall not be started again
        timer_slack_us=timer_slack_us,
    )
    await child.keep_running()
    return child, heard


async def test_every_line_is_kept_in_its_order_however_fast_they_come(tmp_path: Path) -> None:
    program = f"for n in range({LINES}): print(n, 'said'*20)"
    child, heard = await run(program, tmp_path)
    assert [int(line.split()[0]) for line in heard] == list(range(LINES))
    log = (tmp_path / "logs" / "talker.log").read_text()
    assert log.splitlines() == heard
    assert list(child.last_lines) == heard[-LAST_LINES:]


async def test_both_outputs_and_the_last_words_are_kept(tmp_path: Path) -> None:
    program = "import sys; print('out', flush=True); sys.stderr.write('err\\nno end')"
    _, heard = await run(program, tmp_path)
    assert heard == ["out", "err", "no end"]


async def test_of_an_endless_line_the_end_is_kept(tmp_path: Path) -> None:
    program = f"import sys; sys.stdout.write('x' * {5 * LINE_OCTETS} + 'the end')"
    _, heard = await run(program, tmp_path)
    assert len(heard) == 1
    assert len(heard[0]) <= LINE_OCTETS
    assert heard[0].endswith("the end")


async def test_a_pipe_that_ends_when_nobody_waits_for_it_is_no_error() -> None:
    output = Output(lambda _: None)
    output.ended.cancel()
    output.connection_lost(None)


async def test_lines_are_heard_while_the_child_runs(tmp_path: Path) -> None:
    heard: list[str] = []

    def listen(_: str, line: str) -> None:
        heard.append(line)
        if line == "second":
            child.kill()

    program = "import time; print('first\\nsecond', flush=True); time.sleep(600)"
    child = Child(
        "talker", [sys.executable, "-c", program], data=tmp_path, on_line=listen, announce=print
    )
    await child.keep_running()
    assert heard == ["first", "second"]


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of Linux")
async def test_how_late_timers_may_be_is_as_asked(tmp_path: Path) -> None:
    pr_get_timerslack = 30
    program = f"import ctypes; print(ctypes.CDLL(None).prctl({pr_get_timerslack}))"
    _, usual = await run(program, tmp_path)
    _, asked = await run(program, tmp_path, timer_slack_us=500)
    assert usual == [str(ctypes.CDLL(None).prctl(pr_get_timerslack))]
    assert asked == ["500000"]


async def test_a_start_that_fails_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec
    heard: list[str] = []
    announced: list[str] = []

    async def fails_once(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def announce(text: str) -> None:
        announced.append(text)
        if len(announced) == 2:
            child.kill()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fails_once)
    child = Child(
        "talker",
        [sys.executable, "-c", "print('here')"],
        data=tmp_path,
        on_line=lambda _, line: heard.append(line),
        announce=announce,
    )
    await child.keep_running()
    assert announced[0].startswith("talker cannot be started: ")
    assert heard == ["here"]


async def test_a_disk_that_takes_no_pid_file_does_not_cost_the_child_its_keeper(
    tmp_path: Path,
) -> None:
    (tmp_path / "run" / "talker.pid").mkdir(parents=True)  # also root cannot write there
    _, heard = await run("print('here')", tmp_path)
    assert heard == ["here"]


async def test_who_is_told_to_stop_while_it_is_started_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec
    stopping: list[asyncio.Task[None]] = []

    async def interrupted(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        stopping.append(asyncio.create_task(child.stop(wait_s=600)))
        await asyncio.sleep(0)  # it has begun
        return await start(*argv, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", interrupted)
    program = "import time; print('here', flush=True); time.sleep(600)"
    child = Child(
        "talker",
        [sys.executable, "-c", program],
        data=tmp_path,
        on_line=lambda _, __: None,
        announce=print,
    )
    async with asyncio.timeout(60):
        await child.keep_running()
        await stopping[0]
    assert len(stopping) == 1
    assert not (tmp_path / "run" / "talker.pid").exists()
