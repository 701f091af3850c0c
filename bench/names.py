"""The DNS of a comparison: unbound on loopback, which answers everybody from the same table.

It has the sender's domain with SPF (one include), DKIM and DMARC, and knows nothing else: no
question leaves the machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import dns.exception
import dns.message
import dns.query

from bench.processes import end
from tests.support.ports import free_port
from tests.support.programs import program

LOOPBACK: Final = "127.0.0.1"
SENDER_DOMAIN: Final = "example.org"
SENDER_HOST: Final = f"mail.{SENDER_DOMAIN}"
_TTL_SECONDS: Final = 3600
_START_SECONDS: Final = 10.0
_TEXT_OCTETS: Final = 255


class Names:
    """One unbound. Its world is `records`: texts by name and type."""

    def __init__(self, folder: Path, records: Mapping[tuple[str, str], str]) -> None:
        self.port = free_port()
        self._folder = folder
        self._records = records
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        self._folder.mkdir(parents=True)
        config = self._folder / "unbound.conf"
        config.write_text(self._config(), encoding="utf-8")
        self._process = subprocess.Popen(
            [program("unbound"), "-d", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        question = dns.message.make_query(SENDER_DOMAIN, "TXT")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                dns.query.udp(question, LOOPBACK, timeout=0.2, port=self.port)
                return
            except (OSError, dns.exception.DNSException):
                if time.monotonic() > deadline:
                    raise RuntimeError("unbound did not start") from None

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)

    def _config(self) -> str:
        data = "".join(
            f"  local-data: '{name}. {_TTL_SECONDS} IN {kind} {_value(kind, value)}'\n"
            for (name, kind), value in self._records.items()
        )
        return f"""\
server:
  interface: {LOOPBACK}@{self.port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  directory: "{self._folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "." static
  local-data: '. {_TTL_SECONDS} IN SOA . . 1 3600 600 86400 300'
{data}remote-control:
  control-enable: no
"""


def _value(kind: str, value: str) -> str:
    if kind != "TXT":
        return value
    parts = [value[at : at + _TEXT_OCTETS] for at in range(0, len(value), _TEXT_OCTETS)]
    return " ".join(f'"{part}"' for part in parts)


def sender_records(dkim_name: str = "", dkim_record: str = "") -> dict[tuple[str, str], str]:
    """What the sender's domain publishes; a DKIM key if one is given."""
    return {
        (SENDER_DOMAIN, "MX"): f"10 {SENDER_HOST}.",
        (SENDER_DOMAIN, "TXT"): f"v=spf1 include:_spf.{SENDER_DOMAIN} -all",
        (f"_spf.{SENDER_DOMAIN}", "TXT"): "v=spf1 ip4:192.0.2.0/24 ip4:127.0.0.0/8 -all",
        (SENDER_HOST, "A"): LOOPBACK,
        (SENDER_HOST, "TXT"): "v=spf1 a -all",
        (f"_dmarc.{SENDER_DOMAIN}", "TXT"): "v=DMARC1; p=reject",
        **({(dkim_name, "TXT"): dkim_record} if dkim_name else {}),
        ("1.0.0.127.in-addr.arpa", "PTR"): f"{SENDER_HOST}.",
    }
