"""The DNS server of the tests in a process of its own."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.dns import Answer, DnsOptions, DnsResolver, RecordType

LINES = """\
; a comment
a.test MX 10 mx.a.test.
a.test MX 20 mx2.a.test.
a.test TXT v=spf1 ip4:192.0.2.0/24 -all
"""
YAML = """\
a.test:
  MX: ["10 mx.a.test.", "20 mx2.a.test."]
  TXT: ["v=spf1 ip4:192.0.2.0/24 -all"]
"""


@pytest.mark.parametrize(("name", "text"), [("zone.txt", LINES), ("zone.yaml", YAML)])
def test_it_serves_a_file_and_ends_when_told(tmp_path: Path, name: str, text: str) -> None:
    zone = tmp_path / name
    zone.write_text(text)
    command = [sys.executable, "-m", "tests.support.dns_server", "--zone", str(zone)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        exchanges, policies = asyncio.run(ask(f"127.0.0.1:{port}"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert len(exchanges.records) == 2
    assert policies.records == (b"v=spf1 ip4:192.0.2.0/24 -all",)


async def ask(address: str) -> tuple[Answer, Answer]:
    resolver = DnsResolver(DnsOptions(servers=(address,)))
    exchanges = await resolver.query("a.test", RecordType.MX)
    policies = await resolver.query("a.test", RecordType.TXT)
    await resolver.close()
    return exchanges, policies
