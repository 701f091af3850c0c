"""How many CheckEnvelope calls one core of the policy service answers in a second.

    python -m bench.verdicts [CALLS]

The real process with warm DNS, distinct senders, all default checks on, and a client beside it.
Counts the CPU time of the service, so that what else the machine does is not in the figure.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

from gatepost.policy.v1 import directory_pb2
from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.common.rpc.auth import Role
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess
from tests.support.programs import extend_search_path
from tests.support.zone import Key

DOMAINS = 200
AT_ONCE = 32
RECIPIENT = "you@example.test"


def zone() -> dict[Key, list[str]]:
    """Domains with a mail exchange and an SPF record that includes another."""
    records: dict[Key, list[str]] = {
        ("mx.example.org", "A"): ["192.0.2.1"],
        ("spf.example.org", "TXT"): ["v=spf1 ip4:203.0.113.0/24 ip4:192.0.2.0/24 -all"],
    }
    for number in range(DOMAINS):
        domain = f"s{number}.example.org"
        records[domain, "MX"] = ["10 mx.example.org"]
        records[domain, "TXT"] = ["v=spf1 include:spf.example.org -all"]
    return records


async def run(policy: PolicyProcess, calls: int) -> tuple[float, float]:
    """Seconds of the service's CPU, and seconds on the clock, for so many calls."""
    metadata = [("authorization", f"Bearer {policy.token(Role.SERVICE)}")]
    places = asyncio.Semaphore(AT_ONCE)
    async with grpc.aio.insecure_channel(policy.target) as channel:
        check = PolicyServiceStub(channel).CheckEnvelope

        async def ask(number: int) -> None:
            request = pb.CheckEnvelopeRequest(
                session=pb.Session(client_address="192.0.2.1", helo="mx.example.org"),
                sender=f"user{number}@s{number % DOMAINS}.example.org",
                recipients=[RECIPIENT],
                message_id="bench-1",
            )
            async with places:
                answer = await check(request, metadata=metadata, timeout=30)
            assert answer.recipients[0].deliver_to  # noqa: S101 - a refusal would be another figure

        await asyncio.gather(*map(ask, range(DOMAINS)))  # warms the cache
        cpu, clock = _cpu_seconds(policy.pid), time.perf_counter()
        await asyncio.gather(*map(ask, range(calls)))
        return _cpu_seconds(policy.pid) - cpu, time.perf_counter() - clock


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    extend_search_path()
    with tempfile.TemporaryDirectory() as name, DnsServer(zone()) as dns:
        folder = Path(name)
        nats = NatsServer(folder / "nats")
        nats.start()
        try:
            process = PolicyProcess(folder / "policy", nats_url=nats.url, dns=dns.address)
            with process as policy:
                request = directory_pb2.CreateAccountRequest(address=RECIPIENT)
                policy.call(policy.directory.CreateAccount, request, role=Role.OPERATOR)
                cpu, clock = asyncio.run(run(policy, calls))
        finally:
            nats.close()
    sys.stdout.write(
        f"CheckEnvelope: {calls / cpu:,.0f} a second and core ({cpu / calls * 1e6:.0f} µs of CPU)\n"
        f"on the clock, client beside it: {calls / clock:,.0f} a second\n"
    )


if __name__ == "__main__":
    main()
