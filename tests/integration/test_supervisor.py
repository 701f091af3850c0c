"""What a supervised process says, from its pipe to its log and to whoever listens."""

import ctypes
import sys
from pathlib import Path

import pytest

from services.cli.up.supervisor import LAST_LINES, LINE_OCTETS, Child

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
