"""Every alert fires when it should, asks for metrics that there are, and tells what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.support.chart import CHART, ROOT, render
from tests.support.programs import program

ALERTS = CHART / "files" / "alerts.yaml"
TESTS = Path(__file__).parent / "alerts_test.yaml"
GROUPS = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
NAMES = {rule["alert"] for rule in RULES}


def test_each_alert_fires_and_none_without_a_reason(tmp_path: Path) -> None:
    for file in (ALERTS, TESTS):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(tmp_path / TESTS.name)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r'alertname="(\w+)"', TESTS.read_text(encoding="utf-8"))) == NAMES


def test_the_metrics_are_there() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("services/**/*.py"))
    for rule in RULES:
        for metric in re.findall(r"gatepost_\w+", rule["expr"]):
            assert f'"{metric.removesuffix("_info")}"' in code, rule["alert"]


def test_the_documentation_says_what_to_do() -> None:
    text = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (Gatepost\w+) \|", text, re.MULTILINE)) == NAMES


def test_the_chart_installs_them_as_they_are() -> None:
    chart = render({"monitoring": {"prometheusRule": {"enabled": True, "labels": {"a": "b"}}}})
    (rule,) = chart.of("PrometheusRule")
    assert rule["spec"]["groups"] == GROUPS
    assert rule["metadata"]["labels"]["a"] == "b"
