"""What a mail of 100 MB costs: memory above idle and CPU, to a mailbox here and to a next hop.

    python -m bench.large_mail

A whole `gatepost up` with its default limits. The peaks are those of the kernel (VmHWM, reset
before each mail), so nothing between two looks is missed; idle is after some small mails.
"""

from __future__ import annotations

import smtplib
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import cpu_seconds
from bench.sink import Sink
from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.programs import extend_search_path
from tests.support.zone import Key

OCTETS: Final = 99_500_000
"""Just below the default of smtp.max_message_size."""

ALLOWED_OCTETS: Final = 32 * 2**20
"""What the ingress may have above idle."""

_LINE: Final = b"0123456789" * 7 + b"\r\n"
_BLOCK: Final = _LINE * 1000
_SMALL_MAILS: Final = 20
_WAIT_S: Final = 120.0
_LOOK_S: Final = 0.05
_WATCHED: Final = ("ingress", "policy", "delivery")
_LOCAL, _REMOTE = "postmaster@example.test", "you@relay.test"


# The sender is who it says: otherwise its mail would lie in the Junk folder.
_ZONE: Final[dict[Key, list[str]]] = {
    ("mail.example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mail.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one mail took of one service."""

    where: str
    service: str
    peak_octets: int
    """Above idle."""
    cpu_s: float


def run() -> list[Cost]:
    """Send one mail to a mailbox and one to smtp-sink."""
    extend_search_path()
    sink = Sink()
    sink.start()
    try:
        with tempfile.TemporaryDirectory(prefix="gatepost-bench-") as name, DnsServer(_ZONE) as dns:
            relay = {"relay.test": f"smtp:127.0.0.1:{sink.port}"}
            config = {"domains": {"relay": relay}, "dns": {"servers": [dns.address]}}
            installation = Installation(Path(name), config)
            mailbox = installation.data / "mail" / "example.test" / "postmaster" / "new"
            installation.start()
            try:
                return [
                    *_measured(installation, "mailbox", _LOCAL, lambda: _files(mailbox)),
                    *_measured(installation, "smtp-sink", _REMOTE, lambda: sink.count),
                ]
            finally:
                installation.close()
    finally:
        sink.stop()


def _measured(
    installation: Installation, where: str, recipient: str, arrived: Callable[[], int]
) -> list[Cost]:
    port = installation.ports["mx"]
    for _ in range(_SMALL_MAILS):
        _send(port, recipient, len(_BLOCK))
    _wait(arrived, _SMALL_MAILS)
    pids = {service: installation.pid(service) for service in _WATCHED}
    idle = {service: _status(pid, "VmRSS") for service, pid in pids.items()}
    used = {service: cpu_seconds([pid]) for service, pid in pids.items()}
    for pid in pids.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    _send(port, recipient, OCTETS)
    _wait(arrived, _SMALL_MAILS + 1)
    return [
        Cost(
            where,
            service,
            _status(pid, "VmHWM") - idle[service],
            cpu_seconds([pid]) - used[service],
        )
        for service, pid in pids.items()
    ]


def _send(port: int, recipient: str, octets: int) -> None:
    """Without keeping the mail in this process's memory either."""
    with smtplib.SMTP("127.0.0.1", port, "mail.example.org", timeout=_WAIT_S) as client:
        client.ehlo()
        client.mail("ann@example.org")
        client.rcpt(recipient)
        client.docmd("DATA")
        connection = client.sock
        if not isinstance(connection, socket.socket):
            raise TypeError("the session is over")
        connection.sendall(b"From: ann@example.org\r\nSubject: large\r\n\r\n")
        for _ in range(octets // len(_BLOCK)):
            connection.sendall(_BLOCK)
        connection.sendall(b".\r\n")
        code, text = client.getreply()
        if code != 250:
            raise RuntimeError(f"refused: {code} {text!r}")


def _files(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _wait(arrived: Callable[[], int], count: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while arrived() < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{arrived()} of {count} mails arrived")
        time.sleep(_LOOK_S)


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key}")


def main() -> None:
    """Measure and print."""
    sys.stdout.write(f"{'100 MB to':>10} {'service':>9} {'peak above idle':>16} {'CPU':>7}\n")
    for cost in run():
        mib = cost.peak_octets / 2**20
        sys.stdout.write(
            f"{cost.where:>10} {cost.service:>9} {mib:12.1f} MiB {cost.cpu_s:5.2f} s\n"
        )
        if cost.service == "ingress" and cost.peak_octets > ALLOWED_OCTETS:
            sys.exit(f"the ingress took more than {ALLOWED_OCTETS / 2**20:.0f} MiB above idle")


if __name__ == "__main__":
    main()
