"""What a comparison comes to: medians, ratios by rounds, a table and a picture."""

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import machine
from bench.comparison import table_of
from bench.contender import Name
from bench.latency import quantiles
from bench.picture import draw
from bench.report import Report, write
from bench.throughput import Case, Run

_CASE = Case("4 KB, connections reused", 4096, True, 300)
_RATES = {Name.GATEPOST: (100.0, 400.0, 160.0), Name.POSTFIX: (200.0, 400.0, 80.0)}


def _run(name: Name, rate: float) -> Run:
    members = {"ingress": 1000 / rate} if name is Name.GATEPOST else {}
    return Run(name, rate * 2, rate, 2000 / rate, members, memory=2**20, others=0.25)


def test_ratios_are_those_of_the_rounds() -> None:
    """Not of the medians: rounds differ by what else the machine did."""
    rounds = [{name: _run(name, _RATES[name][number]) for name in _RATES} for number in range(3)]
    table = table_of(_CASE, rounds)
    ours, theirs = table.rows
    assert (ours.contender, ours.delivered_per_second, ours.accepted_per_second) == (
        Name.GATEPOST,
        160.0,
        320.0,
    )
    assert (theirs.delivered_per_second, theirs.ratio, theirs.cpu_ms) == (200.0, 1.0, 10.0)
    assert ours.member_cpu_ms == {"ingress": 6.25}
    assert (table.rounds, table.others) == (3, 0.25)


def test_quantiles_in_milliseconds() -> None:
    found = quantiles([number / 1000 for number in range(101)])
    assert (found.p50, found.p95, found.p99) == pytest.approx((50.0, 95.0, 99.0))


def test_a_report_is_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "description", lambda: ["two processors"])
    table = table_of(_CASE, [{name: _run(name, _RATES[name][0]) for name in _RATES}])
    report = Report(short=True, when=datetime(2026, 11, 23, tzinfo=UTC), tables=[table])
    report.parts["signing"] = "   rsa 2048  1905"
    text, picture = write(report, tmp_path)
    assert report.title == "2026-11-23-short"
    assert {path.stem for path in (text, picture)} == {report.title}
    words = text.read_text(encoding="utf-8")
    assert "| Gatepost | 200 | 100 |  | 20.00 | 1 |" in words
    assert "| Postfix bare | 400 | 200 | 0.50 × | 10.00 | 1 |" in words
    assert "Gatepost's CPU by process: ingress 10.00." in words
    assert "25% of the machine was used by others" in words
    assert "two processors" in words
    assert f"]({picture.name})" in words
    assert "   rsa 2048  1905" in words


def test_bars_are_as_long_as_their_figures() -> None:
    table = table_of(_CASE, [{name: _run(name, _RATES[name][0]) for name in _RATES}])
    tree = ElementTree.fromstring(draw([table]))
    bars = [
        each for each in tree.iter("{http://www.w3.org/2000/svg}rect") if each.get("height") == "18"
    ]
    ours, theirs = (float(bar.get("width", "")) for bar in bars)
    assert ours * 2 == pytest.approx(theirs)


def test_a_report_of_some_parts_says_so() -> None:
    when = datetime(2026, 11, 23, tzinfo=UTC)
    report = Report(short=True, when=when, only=("signing", "verdicts"))
    assert report.title == "2026-11-23-short-signing-verdicts"
    assert report.command == 'make bench ARGS="--short --only signing --only verdicts"'
    assert Report(short=False, when=when).command == "make bench"
