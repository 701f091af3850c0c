"""The contenders of incoming mail: started together, looked at, and ended together.

Nothing is measured unless the header of a delivered mail tells that each made its checks.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contender import Contender, Name, Surroundings
from bench.filters import Opendkim, PolicydSpf, Rspamd
from bench.gatepost_up import Gatepost
from bench.mail import dkim_record, signed_mail
from bench.names import Names, sender_records
from bench.postfix import Postfix
from bench.sink import Sample, Sink
from bench.throughput import send_one

_ALL_THREE: Final = ("spf=pass", "dkim=pass", "dmarc=pass")


@dataclass(frozen=True, slots=True)
class LineUp:
    """Everything that runs."""

    folder: Path
    names: Names
    contenders: tuple[Contender, ...]
    sink: Sink

    def mail(self, octets: int) -> Path:
        """A file with a signed mail of this size."""
        path = self.folder / f"mail-{octets}"
        if not path.exists():
            path.write_bytes(signed_mail(octets))
        return path


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder that goes away with all that is in it. Mail servers, as other users, may enter."""
    folder = Path(tempfile.mkdtemp(prefix="gatepost-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def incoming(folder: Path) -> Iterator[LineUp]:
    """All four, running and seen to make their checks."""
    sink = Sink()
    names = Names(folder / "dns", sender_records(*dkim_record()))
    contenders = _contenders(folder, sink.port, names.port)
    line_up = LineUp(folder, names, contenders, sink)
    try:
        names.start()
        with ThreadPoolExecutor() as executor:
            list(executor.map(lambda contender: contender.start(), contenders))
        for contender in contenders:
            _look_at(contender, line_up)
        sink.start()
        yield line_up
    finally:
        for contender in contenders:
            contender.stop()
        names.stop()
        sink.stop()


def _contenders(folder: Path, sink: int, dns: int) -> tuple[Contender, ...]:
    def place(name: str) -> Surroundings:
        return Surroundings(folder / name, sink, dns)

    return (
        Gatepost(place("gatepost"), evidence=_ALL_THREE),
        Postfix(Name.POSTFIX, place("bare")),
        Postfix(
            Name.POSTFIX_SPF_DKIM,
            place("spf-dkim"),
            [PolicydSpf(folder / "policyd-spf", dns), Opendkim(folder / "opendkim", dns)],
            evidence=("Received-SPF: Pass", "dkim=pass"),
        ),
        Postfix(
            Name.POSTFIX_RSPAMD,
            place("rspamd"),
            [Rspamd(folder / "rspamd-milter", dns)],
            evidence=_ALL_THREE,
        ),
    )


def _look_at(contender: Contender, line_up: LineUp) -> None:
    """Raises `RuntimeError` if a delivered mail does not show the checks."""
    with Sample(line_up.sink.port) as sample:
        send_one(contender.port, line_up.mail(4096))
        header = sample.wait().partition(b"\n\n")[0].decode("utf-8", "replace")
    missing = [text for text in contender.evidence if text not in header]
    if missing:
        raise RuntimeError(f"{contender.name} did not say {missing}:\n{header}")
