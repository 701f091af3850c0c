"""A short run of what `make chaos` does at length."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["failpoints", "hanging_nats", "lost_leaders"])
def test_no_mail_is_lost(tmp_path: Path, fault: str) -> None:
    report = tmp_path / "report"
    code = main(["--seconds", "20", "--only", fault, "--sessions", "3", "--report", str(report)])
    assert code == 0, report.read_text(encoding="utf-8")
