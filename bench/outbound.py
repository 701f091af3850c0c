"""Submitted mail that is signed on its way out: Gatepost against Postfix with opendkim.

Some sessions submit over TLS, each one mail after the other. Connecting, the handshake and the
login (only Gatepost asks for one) are over before the clock starts. Nothing is measured unless a
delivered mail carries a signature of the sender's domain.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.contender import Contender, Name, Surroundings
from bench.filters import Opendkim
from bench.gatepost_up import Gatepost
from bench.mail import SELECTOR, SUBMITTER, SUBMITTER_DOMAIN, submitted_mail
from bench.names import Names, sender_records
from bench.postfix import HOSTNAME, Postfix
from bench.processes import cpu_seconds
from bench.sink import Sample, Sink
from bench.submitter import Submitter
from services.common.tls import ensure_self_signed
from tests.support import dkim_signer

SESSIONS: Final = 20
_KEY_BITS: Final = 2048
_PASSWORD: Final = "only for the comparison"  # noqa: S105 - of an account that lives for minutes
_DELIVERY_SECONDS: Final = 90.0
_EVIDENCE: Final = ("DKIM-Signature:", f"d={SUBMITTER_DOMAIN};")


@dataclass(frozen=True, slots=True)
class Outbound:
    """The medians of one contender."""

    contender: str
    accepted_per_second: float
    delivered_per_second: float
    ratio: float
    """Of delivered mails, ours to this one's."""
    cpu_ms: float
    """Of all processes of the contender, for one mail."""


class _Submission(Protocol):
    """A contender that mail is submitted to."""

    contender: Contender
    port: int
    password: str

    def prepare(self) -> None:
        """What has to be done once it runs."""


class _Ours:
    password = _PASSWORD

    def __init__(self, surroundings: Surroundings) -> None:
        config = {
            "delivery": {"dkim": {"enabled": True}},
            "submission": {"recipients_per_hour": 0},
        }
        self._gatepost = Gatepost(surroundings, config, evidence=_EVIDENCE)
        self.contender: Contender = self._gatepost
        self.port = self._gatepost.installation.ports["submission"]

    def prepare(self) -> None:
        self._do("accounts", "add", SUBMITTER, "--password-file", "-", stdin=_PASSWORD)
        self._do("keys", "create", SUBMITTER_DOMAIN, "--selector", SELECTOR)
        self._do("keys", "activate", SUBMITTER_DOMAIN, SELECTOR, "--override")

    def _do(self, *arguments: str, stdin: str = "") -> None:
        done = self._gatepost.installation.gatepost(*arguments, stdin=stdin)
        if done.returncode:
            raise RuntimeError(f"gatepost {' '.join(arguments)}: {done.stderr.strip()}")


class _Postfix:
    password = ""

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        folder.mkdir()
        certificate = ensure_self_signed(folder / "tls", HOSTNAME)
        key = dkim_signer.rsa_key(_KEY_BITS).private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        path = folder / "dkim.pem"
        path.write_bytes(key)
        path.chmod(0o600)
        settings = (
            "smtpd_tls_security_level = may\n"
            f"smtpd_tls_chain_files = {certificate.key}, {certificate.certificate}\n"
        )
        signer = Opendkim(
            folder / "opendkim", surroundings.dns_port, (SUBMITTER_DOMAIN, SELECTOR, path)
        )
        self.contender: Contender = Postfix(
            Name.POSTFIX_SIGNING, surroundings, [signer], settings=settings, evidence=_EVIDENCE
        )
        self.port = self.contender.port

    def prepare(self) -> None:
        """Nothing: who comes from loopback may submit."""


def measure(folder: Path, *, count: int, rounds: int) -> list[Outbound]:
    """Both in turns, `count` mails each time."""
    sink = Sink()
    names = Names(folder / "dns", sender_records())
    ours = _Ours(Surroundings(folder / "gatepost", sink.port, names.port))
    theirs = _Postfix(folder / "signing", Surroundings(folder / "postfix", sink.port, names.port))
    both: tuple[_Submission, ...] = (ours, theirs)
    runs: list[dict[Name, Outbound]] = []
    try:
        names.start()
        for each in both:
            each.contender.start()
            each.prepare()
            _look_at(each, sink.port)
        sink.start()
        for number in range(rounds + 1):
            order = both if number % 2 else both[::-1]
            found = {each.contender.name: _run(each, sink, count) for each in order}
            if number:  # the first round warms up
                runs.append(found)
    finally:
        for each in both:
            each.contender.stop()
        names.stop()
        sink.stop()
    return [_median(each.contender.name, runs) for each in both]


def _run(submission: _Submission, sink: Sink, count: int) -> Outbound:
    mail, roots = submitted_mail(4096), submission.contender.roots()
    with _sessions(submission) as sessions:
        share = count // len(sessions)
        wanted = sink.count + share * len(sessions)
        cpu, began = cpu_seconds(roots), time.monotonic()
        with ThreadPoolExecutor(len(sessions)) as executor:
            list(executor.map(lambda each: each.send_many(mail, share), sessions))
        accepted = time.monotonic() - began
        delivered = sink.wait(wanted, seconds=_DELIVERY_SECONDS) - began
        cpu = cpu_seconds(roots) - cpu
    sent = share * len(sessions)
    return Outbound(
        submission.contender.name, sent / accepted, sent / delivered, 1.0, cpu / sent * 1000
    )


@contextlib.contextmanager
def _sessions(submission: _Submission) -> Iterator[list[Submitter]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Submitter(submission.port, submission.password))
            for _ in range(SESSIONS)
        ]


def _look_at(submission: _Submission, sink_port: int) -> None:
    """Raises `RuntimeError` if a delivered mail is not signed."""
    with Sample(sink_port) as sample:
        with Submitter(submission.port, submission.password) as session:
            session.send_many(submitted_mail(4096), 1)
        header = sample.wait().partition(b"\n\n")[0].decode("utf-8", "replace")
    missing = [text for text in _EVIDENCE if text not in header]
    if missing:
        raise RuntimeError(f"{submission.contender.name} did not say {missing}:\n{header}")


def _median(name: Name, runs: list[dict[Name, Outbound]]) -> Outbound:
    return Outbound(
        contender=name,
        accepted_per_second=statistics.median(run[name].accepted_per_second for run in runs),
        delivered_per_second=statistics.median(run[name].delivered_per_second for run in runs),
        ratio=statistics.median(
            run[Name.GATEPOST].delivered_per_second / run[name].delivered_per_second for run in runs
        ),
        cpu_ms=statistics.median(run[name].cpu_ms for run in runs),
    )
