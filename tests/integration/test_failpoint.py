import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.failpoint import VARIABLE, Failpoint, parse

PASS_THRICE = """
from services.common.failpoint import Failpoint, reached
for number in range(3):
    reached(Failpoint.AFTER_DOT)
    print(number, flush=True)
"""


def run(setting: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", PASS_THRICE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_process_dies_at_its_count() -> None:
    ended = run("after-defer=1, after-dot=2")
    assert ended.returncode == -signal.SIGKILL
    assert (ended.stdout, ended.stderr) == ("0\n", "failpoint after-dot\n")


def test_nothing_happens_unless_asked() -> None:
    assert (run("").stdout, run("after-dot=4").returncode) == ("0\n1\n2\n", 0)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("after-lunch=1", "'after-lunch' is none of after-data, "),
        ("after-dot", "'after-dot' is not NAME=COUNT"),
        ("after-dot=0", "with a count from 1 on"),
        ("after-dot=often", "is not NAME=COUNT"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, says: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE) as error:
        parse(setting)
    assert says in str(error.value)
    assert run(setting).returncode == 1


def test_a_file_may_say_it(tmp_path: Path) -> None:
    setting = tmp_path / "failpoints"
    setting.write_text("after-dot=1\n")
    assert run(f"@{setting}").returncode == -signal.SIGKILL
    setting.write_text("")
    assert run(f"@{setting}").stdout == "0\n1\n2\n"
    assert run(f"@{tmp_path / 'nowhere'}").returncode == 1


def test_every_place_has_a_name() -> None:
    assert parse(",".join(f"{point}=7" for point in Failpoint)) == dict.fromkeys(Failpoint, 7)
