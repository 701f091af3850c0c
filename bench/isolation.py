"""What others notice of an attack on the policy service.

    python -m bench.isolation [ATTACK …]

The real process, and beside it somebody who asks about an envelope with warm DNS again and again,
over a stream as the ingress does and by calls as people do: first alone, then while an attack is
under way. Printed are the times that this one waits; the CPU time that the service spent meanwhile,
which is what the wait would be on a machine of its own; and how many times more than alone that is.
The attackers (who make calls), the DNS server and the one who is measured are own processes.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc.aio

from bench.name_server import name_server
from gatepost.policy.v1 import directory_pb2
from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceStub
from services.common.rpc.auth import Role
from services.common.rpc.client import channel
from services.ingress.judges import Judges
from tests.support.nats_server import NatsServer
from tests.support.policy_process import PolicyProcess
from tests.support.programs import extend_search_path

if TYPE_CHECKING:
    from gatepost.policy.v1.policy_pb2_grpc import PolicyServiceAsyncStub

RECIPIENT = "you@example.test"
PAUSE_S = 0.02
"""Between two questions of the one who is measured."""

ALONE_S = 3.0
ROUNDS = 3
"""Each attack is made so often, with other names."""

AT_ONCE = 1000
TREES = 100
MAILS = 100


@dataclass(frozen=True, slots=True)
class Client:
    """Calls with the token of the ingress."""

    stub: PolicyServiceAsyncStub
    metadata: Sequence[tuple[str, str | bytes]]

    async def envelope(self, domain: str, *, helo: str = "mx.example.org") -> None:
        """Ask about an envelope."""
        request = _envelope(domain, helo=helo)
        await self.stub.CheckEnvelope(request, metadata=self.metadata, timeout=30)

    async def message(self, header: str) -> None:
        """Ask about a mail."""
        request = pb.CheckMessageRequest(
            session=pb.Session(client_address="192.0.2.1", helo="mx.example.org"),
            sender="u@warm.example.org",
            recipients=[RECIPIENT],
            message_id="bench-1",
            content=f"{header}\r\nHello\r\n".encode(),
        )
        await self.stub.CheckMessage(request, metadata=self.metadata, timeout=30)


def _envelope(domain: str, *, helo: str = "mx.example.org") -> pb.CheckEnvelopeRequest:
    session = pb.Session(client_address="192.0.2.1", helo=helo)
    return pb.CheckEnvelopeRequest(
        session=session, sender=f"u@{domain}", recipients=[RECIPIENT], message_id="bench-1"
    )


async def cold(client: Client, number: int) -> None:
    """1,000 envelopes at once whose names nobody has asked for yet"""
    names = range(number * AT_ONCE, (number + 1) * AT_ONCE)
    await asyncio.gather(
        *(client.envelope(f"c{each}.example.org", helo=f"h{each}.example.org") for each in names)
    )


async def warm(client: Client, number: int) -> None:
    """1,000 envelopes at once that can be judged at once"""
    del number
    await asyncio.gather(*(client.envelope("warm.example.org") for _ in range(AT_ONCE)))


async def slow(client: Client, number: int) -> None:
    """1,000 envelopes at once of domains whose servers are silent"""
    names = [f"n{number}-{each}.slow.test" for each in range(AT_ONCE)]
    await asyncio.gather(*(client.envelope(name, helo=f"h.{name}") for name in names))


async def trees(client: Client, number: int) -> None:
    """100 SPF trees at once of the largest size"""
    names = range(number * TREES, (number + 1) * TREES)
    await asyncio.gather(*(client.envelope(f"t{each}.example.org") for each in names))


async def keys(client: Client, number: int) -> None:
    """100 mails at once, 10 signatures each, with keys of all sizes"""
    selectors = ("huge", "odd", "sound")
    mails = [_signed(f"{number}-{each}", selectors[each % 3], 10) for each in range(MAILS)]
    await asyncio.gather(*map(client.message, mails))


async def signatures(client: Client, number: int) -> None:
    """100 mails at once, 500 signatures each"""
    mails = [_signed(f"{number}-{each}", "sound", 500) for each in range(MAILS)]
    await asyncio.gather(*map(client.message, mails))


async def callouts(client: Client, number: int) -> None:
    """400 senders at once whose exchange never answers, or is 127.0.0.1"""
    del number
    names = [f"{('hang', 'loop')[each % 2]}.example.org" for each in range(400)]
    await asyncio.gather(*map(client.envelope, names))


Attack = Callable[[Client, int], Awaitable[None]]
ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack for attack in (cold, warm, slow, trees, keys, signatures, callouts)
}


def _signed(subject: str, selector: str, count: int) -> str:
    signature, digest = (base64.b64encode(b"x" * size).decode() for size in (256, 32))
    one = (
        f"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s={selector}; c=relaxed/relaxed;\r\n"
        f" h=from:subject; bh={digest};\r\n b={signature}\r\n"
    )
    return f"{one * count}From: u@warm.example.org\r\nSubject: {subject}\r\n"


async def attack(name: str, target: str, token: str) -> None:
    """The process of an attacker: connect, say so, wait for the word, attack."""
    async with grpc.aio.insecure_channel(target) as channel:
        client = Client(PolicyServiceStub(channel), (("authorization", f"Bearer {token}"),))
        await client.envelope("warm.example.org")
        for number in range(ROUNDS):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            await ATTACKS[name](client, number)


class Watch(NamedTuple):
    """How long one question took."""

    clock_s: float
    work_s: float
    """Seconds of CPU that the service spent meanwhile: on a machine with nothing else to do, the
    answer would have taken about as long."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How the one who is measured asks, by the names of the ways."""

    ask: Mapping[str, Callable[[pb.CheckEnvelopeRequest], Awaitable[object]]]

    async def measure(self, pid: int, under_way: Callable[[], bool]) -> dict[str, list[Watch]]:
        """One warm check after the other, each way by itself."""
        ways = [self._measure(ask, pid, under_way) for ask in self.ask.values()]
        return dict(zip(self.ask, await asyncio.gather(*ways), strict=True))

    async def _measure(
        self,
        ask: Callable[[pb.CheckEnvelopeRequest], Awaitable[object]],
        pid: int,
        under_way: Callable[[], bool],
    ) -> list[Watch]:
        found: list[Watch] = []
        while under_way():
            clock, work = time.perf_counter(), _work(pid)
            await ask(_envelope("warm.example.org"))
            found.append(Watch(time.perf_counter() - clock, _work(pid) - work))
            await asyncio.sleep(PAUSE_S)
        return found


def _work(pid: int) -> float:
    """Seconds that the main thread of a process has been running."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


async def measure_under(name: str, policy: PolicyProcess, ways: Ways) -> dict[str, list[Watch]]:
    """The same, while an attack is under way."""
    arguments = ("-m", "bench.isolation", "--attack", name, policy.target)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, policy.token(Role.SERVICE), stdin=pipe, stdout=pipe
    )
    found: dict[str, list[Watch]] = {way: [] for way in ways.ask}
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - pipes
    await process.stdout.readline()
    for _ in range(ROUNDS):
        process.stdin.write(b"go\n")
        # The next word, or the end, is the end of this round.
        over = asyncio.ensure_future(process.stdout.readline())
        seen = await ways.measure(policy.pid, lambda over=over: not over.done())  # type: ignore[misc]
        for way, watches in seen.items():
            found[way] += watches
    await process.wait()
    return found


async def run(policy: PolicyProcess, names: Sequence[str]) -> None:
    """Measure and print two lines for each."""
    token = policy.token(Role.SERVICE)
    async with channel(policy.target, token_source=lambda: token) as opened:
        stub = PolicyServiceStub(opened)
        judges = Judges(stub.Judge)
        ways = Ways(
            {
                "stream": lambda request: judges.ask("envelope", request, seconds=30),
                "call": lambda request: stub.CheckEnvelope(request, timeout=30),
            }
        )
        for ask in ways.ask.values():
            await ask(_envelope("warm.example.org"))
        ends = time.monotonic() + ALONE_S
        alone = await ways.measure(policy.pid, lambda: time.monotonic() < ends)
        _print("alone", alone, alone)
        for name in names:
            asks = "spam" if name == "callouts" else "accept"
            policy.configure({"policy": {"actions": {"sender_unreachable": asks}}})
            _print(name, await measure_under(name, policy, ways), alone)
        judges.close()


def _print(
    name: str, found: Mapping[str, Sequence[Watch]], alone: Mapping[str, Sequence[Watch]]
) -> None:
    what = (ATTACKS[name].__doc__ or "") if name in ATTACKS else "nobody else"
    for way, watches in found.items():
        clock, work = ([watch[part] for watch in watches] for part in (0, 1))
        figures = [_at(clock, 0.5), _at(clock, 0.99)]
        figures += [_at(work, 0.5), _at(work, 0.9), _at(work, 0.99)]
        ratio = _at(work, 0.99) / _at([watch.work_s for watch in alone[way]], 0.5)
        columns = " ".join(f"{seconds * 1000:8.1f}" for seconds in figures)
        line = f"{name:<11}{way:<7}{len(watches):>6} {columns} {ratio:7.0f}   {what}\n"
        sys.stdout.write(line)
        sys.stdout.flush()


def _at(times: Sequence[float], part: float) -> float:
    ordered = sorted(times)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


@contextmanager
def service(folder: Path) -> Iterator[PolicyProcess]:
    """The policy service with its NATS server and its DNS server."""
    nats = NatsServer(folder / "nats")
    nats.start()
    try:
        with name_server() as dns:
            process = PolicyProcess(folder / "policy", nats_url=nats.url, dns=dns)
            with process as policy:
                request = directory_pb2.CreateAccountRequest(address=RECIPIENT)
                policy.call(policy.directory.CreateAccount, request, role=Role.OPERATOR)
                yield policy
    finally:
        nats.close()


def main() -> None:
    """Measure the attacks that are named, or all."""
    if sys.argv[1:2] == ["--attack"]:
        asyncio.run(attack(*sys.argv[2:5]))
        return
    extend_search_path()
    head = " ".join(f"{text:>8}" for text in ("median", "99 %", "median", "90 %", "99 %"))
    sys.stdout.write(f"{'':<25}{'ms on the clock':>17}  {'ms of work by the service':>26}\n")
    sys.stdout.write(f"{'attack':<11}{'by':<7}{'asked':>6} {head} {'× alone':>7}\n")
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as policy:
        asyncio.run(run(policy, sys.argv[1:] or list(ATTACKS)))


if __name__ == "__main__":
    main()
