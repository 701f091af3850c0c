"""`make bench`: Gatepost beside other mail servers, and the figures of its parts.

    python -m bench [--short] [--precedence] [--only PART]… [--results FOLDER]

Root only, since Postfix starts as root only. Ends by itself, leaves nothing running and nothing
behind but a report: a table in Markdown and a picture.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import outbound, report
from bench.comparison import latencies, throughput
from bench.line_up import incoming, workplace
from bench.parts import LATE, PARTS, belongs, run_part
from bench.precedence import precedence
from bench.throughput import Case
from tests.support.programs import extend_search_path

_RESULTS: Final = Path(__file__).parent / "results"
_CASES: Final = (
    Case("4 KB, one mail per connection", 4096, False, 600),
    Case("4 KB, connections reused", 4096, True, 600),
    Case("100 KB, one mail per connection", 100_000, False, 150),
    Case("100 KB, connections reused", 100_000, True, 150),
)
_SHORT_CASES: Final = (
    Case("4 KB, one mail per connection", 4096, False, 300),
    Case("4 KB, connections reused", 4096, True, 300),
    Case("100 KB, connections reused", 100_000, True, 100),
)
_ROUNDS, _SHORT_ROUNDS = 5, 3
_LATENCY_MAILS, _SHORT_LATENCY_MAILS = 40, 20
_OUTBOUND_MAILS, _SHORT_OUTBOUND_MAILS = 400, 160
_INCOMING_SECONDS, _SHORT_INCOMING_SECONDS = 200.0, 70.0
_ALL_SECONDS: Final = 480.0
"""When so much time has passed no other part is begun; one may take two minutes more."""

_TERMINATED: Final = 128 + signal.SIGTERM
_INCOMING: Final = "incoming"
_OUTBOUND: Final = "outbound"


def main() -> int:
    """Measure and report."""
    arguments = _arguments()
    if os.getuid() != 0:
        say("Postfix starts as root only. Run: sudo make bench")
        return 1
    # As Ctrl-C does: what was started is ended, and its folders go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    extend_search_path()
    began = time.monotonic()
    found = report.Report(
        short=arguments.short,
        when=datetime.now(UTC),
        only=tuple(arguments.only or ()),
        precedence=arguments.precedence,
    )
    wanted = arguments.only or [_INCOMING, _OUTBOUND, *PARTS]
    with precedence() if arguments.precedence else contextlib.nullcontext():
        _measure(found, wanted, began)
    found.seconds = time.monotonic() - began
    for path in report.write(found, arguments.results):
        say(f"written: {path}")
    sys.stdout.write("\n" + report.markdown(found))
    return 0


def say(text: str) -> None:
    """Tell how it goes."""
    sys.stderr.write(f"bench: {text}\n")


def _measure(found: report.Report, wanted: Sequence[str], began: float) -> None:
    if _INCOMING in wanted:
        _incoming(found, short=found.short)
    if _OUTBOUND in wanted:
        say("signed submission …")
        mails = _SHORT_OUTBOUND_MAILS if found.short else _OUTBOUND_MAILS
        rounds = _SHORT_ROUNDS if found.short else _ROUNDS
        with workplace() as folder:
            found.outbound = outbound.measure(folder, count=mails, rounds=rounds)
    for name in PARTS:
        if name not in wanted or not belongs(name, short=found.short):
            continue
        say(f"{name} …")
        late = time.monotonic() - began > _ALL_SECONDS and not found.only
        found.parts[name] = LATE if late else run_part(name, short=found.short)


def _incoming(found: report.Report, *, short: bool) -> None:
    say("starting Gatepost and three Postfix …")
    with workplace() as folder, incoming(folder) as line_up:
        say("all of them make their checks; measuring …")
        cases, rounds = (_SHORT_CASES, _SHORT_ROUNDS) if short else (_CASES, _ROUNDS)
        seconds = _SHORT_INCOMING_SECONDS if short else _INCOMING_SECONDS
        found.tables = throughput(line_up, cases, rounds, seconds=seconds, say=say)
        mails = _SHORT_LATENCY_MAILS if short else _LATENCY_MAILS
        found.latencies = latencies(line_up, rounds, mails)
        found.latency_mails = rounds * mails


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="fewer mails: two or three minutes")
    parser.add_argument(
        "--precedence", action="store_true", help="over what else this machine does"
    )
    parser.add_argument(
        "--only", action="append", choices=[_INCOMING, _OUTBOUND, *PARTS], help="this part"
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where the report goes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
