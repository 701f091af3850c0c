"""What verdicts cost one core of the policy service: envelopes alone, and whole mails.

    python -m bench.verdicts [CALLS]

The real process with warm DNS, distinct senders, all default checks on, and a client beside it. A
mail is a CheckEnvelope and a CheckMessage with one valid RSA-2048 signature, as the ingress asks.
Counts the CPU time of the service, so that what else the machine does is not in the figure.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import Message

from gatepost.policy.v1 import directory_pb2
from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.common.rpc.auth import Role
from services.common.rpc.client import channel
from services.ingress.judges import Judges
from tests.support.dkim_signer import KEY_NAME, record, rsa_key, sign
from tests.support.dns_server import DnsServer
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess
from tests.support.programs import extend_search_path
from tests.support.zone import Key

DOMAINS = 200
AT_ONCE = 32
RECIPIENT = "you@example.test"
SESSION = pb.Session(client_address="192.0.2.1", helo="mx.example.org")


def zone() -> dict[Key, list[str]]:
    """Domains with a mail exchange and an SPF record that includes another."""
    records: dict[Key, list[str]] = {
        ("mx.example.org", "A"): ["192.0.2.1"],
        (KEY_NAME, "TXT"): [record(rsa_key(2048))],
        ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject"],
        ("spf.example.org", "TXT"): ["v=spf1 ip4:203.0.113.0/24 ip4:192.0.2.0/24 -all"],
    }
    for number in range(DOMAINS):
        domain = f"s{number}.example.org"
        records[domain, "MX"] = ["10 mx.example.org"]
        records[domain, "TXT"] = ["v=spf1 include:spf.example.org -all"]
    return records


class Spent(NamedTuple):
    """What so many pieces of work cost."""

    pieces: int
    cpu_s: float
    clock_s: float


async def run(policy: PolicyProcess, calls: int) -> dict[str, Spent]:
    """What so many envelopes, and half as many mails, cost the service."""
    token = policy.token(Role.SERVICE)
    async with channel(policy.target, token_source=lambda: token) as opened:
        checks = PolicyServiceStub(opened)
        judges = Judges(checks.Judge)
        by_call = Asker(
            {"envelope": checks.CheckEnvelope, "message": checks.CheckMessage}.__getitem__
        )
        by_stream = Asker(lambda kind: partial(_judged, judges, kind))
        found = {
            "CheckEnvelope": await _spent(policy, calls, by_call.envelope),
            "over a stream": await _spent(policy, calls, by_stream.envelope),
            "whole mail, two calls": await _spent(policy, calls // 2, by_call.mail),
            "over a stream, as the ingress asks": await _spent(policy, calls // 2, by_stream.mail),
        }
        judges.close()
        return found


async def _judged(judges: Judges, kind: str, request: Message, *, timeout: float) -> Any:  # noqa: ASYNC109
    return await judges.ask(kind, request, seconds=timeout)


class Asker:
    """Asks. `way`: what sends a request of this kind and returns its answer."""

    def __init__(self, way: Callable[[str], Any]) -> None:
        self._check_envelope, self._check_message = way("envelope"), way("message")
        text = "From: Ann <ann@example.org>\nTo: you@example.test\nSubject: Hello\n\nHello\n"
        signed = sign(text, rsa_key(2048)).replace("\n", "\r\n").encode()
        header, _, body = signed.partition(b"\r\n\r\n")
        digest = pb.BodyDigest(
            canonicalization="relaxed",
            hash_algorithm="sha256",
            digest=sha256(body).digest(),
            covered_octets=len(body),
            total_octets=len(body),
        )
        self._header = pb.HeaderAndDigests(header_block=header + b"\r\n", body_digests=[digest])

    async def envelope(self, number: int) -> pb.CheckEnvelopeResponse:
        """The question at RCPT."""
        request = pb.CheckEnvelopeRequest(
            session=SESSION,
            sender=_sender(number),
            recipients=[RECIPIENT],
            message_id="bench-1",
        )
        answer: pb.CheckEnvelopeResponse = await self._check_envelope(request, timeout=30)
        assert answer.recipients[0].deliver_to  # noqa: S101 - a refusal would be another figure
        return answer

    async def mail(self, number: int) -> None:
        """The questions at RCPT and at the final dot."""
        known = await self.envelope(number)
        request = pb.CheckMessageRequest(
            session=SESSION,
            sender=_sender(number),
            recipients=[RECIPIENT],
            message_id="bench-1",
            header=self._header,
            envelope_results=known.verdict.check_results,
        )
        answer = await self._check_message(request, timeout=30)
        found = {result.check: result.result for result in answer.verdict.check_results}
        assert found["dkim_invalid"] == "pass", found  # noqa: S101 - as above


def _sender(number: int) -> str:
    return f"user{number}@s{number % DOMAINS}.example.org"


async def _spent(
    policy: PolicyProcess, count: int, ask: Callable[[int], Awaitable[object]]
) -> Spent:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask_in_turn(number: int) -> None:
        async with places:
            await ask(number)

    await asyncio.gather(*map(ask_in_turn, range(DOMAINS)))  # warms the cache
    cpu, clock = _cpu_seconds(policy.pid), time.perf_counter()
    await asyncio.gather(*map(ask_in_turn, range(count)))
    return Spent(count, _cpu_seconds(policy.pid) - cpu, time.perf_counter() - clock)


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
                found = asyncio.run(run(policy, calls))
        finally:
            nats.close()
    for name, spent in found.items():
        sys.stdout.write(
            f"{name}: {spent.pieces / spent.cpu_s:,.0f} a second and core"
            f" ({spent.cpu_s / spent.pieces * 1e6:.0f} µs of CPU);"
            f" on the clock, client beside it: {spent.pieces / spent.clock_s:,.0f} a second\n"
        )


if __name__ == "__main__":
    main()
