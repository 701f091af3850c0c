"""Installations for end-to-end tests, each with a DNS server on loopback behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.installation import Installation
from tests.support.sink import Sink

RECORDS = {
    ("example.org", "A"): ["127.0.0.1"],
    ("example.org", "MX"): ["10 mail.example.org"],
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.1 -all"],
    ("mail.example.org", "A"): ["127.0.0.1"],
}


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    """The world's DNS: example.org sends from 127.0.0.1 with a matching name."""
    with DnsServer(RECORDS) as server:
        yield server


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """The next hop of relay.test: Postfix's smtp-sink."""
    started = Sink()
    started.start()
    yield started
    started.close()


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, dns: DnsServer, sink: Sink
) -> Iterator[Installation]:
    """A running `gatepost up` with two local domains and a relay domain."""
    started = Installation(
        tmp_path_factory.mktemp("gatepost"),
        {
            "dns": {"servers": [dns.address]},
            "domains": {
                "local": ["example.test", "second.test"],
                "relay": {"relay.test": f"smtp:127.0.0.1:{sink.port}"},
            },
            "delivery": {"retry": {"interval": "2s", "max_retries": 100}},
        },
    )
    started.start()
    try:
        for address in ("you@example.test", "me@second.test"):
            started.add_account(address, PASSWORD)
        yield started
    finally:
        started.close()


PASSWORD = "correct horse battery"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for one test's files."""
    return tmp_path
