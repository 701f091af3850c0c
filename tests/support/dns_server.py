"""A real DNS server on loopback, UDP and TCP, that answers from a table and misbehaves to order.

    with DnsServer({("a.test", "MX"): ["10 mx.a.test"]}, servfail={"broken.test"}) as server:
        resolver = DnsResolver(DnsOptions(servers=(server.address,)))

Each fault is a set of names, or of (name, type) pairs, and may be changed while the server runs, as
may the records. Or in a process of its own, which prints its port and runs until it is ended:

    python -m tests.support.dns_server --zone records.yaml --port 0

Life cycle: `start`, `stop`, once each; the `with` statement does both. It lives in a thread with an
event loop of its own, so tests with and without one can use it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

from tests.support.zone import (
    Key,
    NameOrKey,
    Way,
    Zone,
    listed,
    rdata_of,
    read_records,
    spelling,
)

LOOPBACK = "127.0.0.1"
_START_SECONDS = 30.0
_PORT_TRIES = 20
_PLAIN_PAYLOAD = 512  # octets of a UDP answer without EDNS (RFC 1035 §4.2.1)
_NEGATIVE_TTL = 60


class Query(NamedTuple):
    """A question that arrived: equal to the tuple of its parts."""

    name: str
    rdtype: str
    transport: str
    """`udp` or `tcp`."""


class DnsServer:
    """A recursive-looking server whose whole world is `records`."""

    def __init__(
        self,
        records: Mapping[Key, Iterable[str]] | None = None,
        *,
        servfail: Iterable[NameOrKey] = (),
        refused: Iterable[NameOrKey] = (),
        timeout: Iterable[NameOrKey] = (),
        nxdomain: Iterable[NameOrKey] = (),
        empty: Iterable[NameOrKey] = (),
        truncated: Iterable[NameOrKey] = (),
        no_tcp: Iterable[NameOrKey] = (),
        wrong_id: Iterable[NameOrKey] = (),
        garbage: Iterable[NameOrKey] = (),
        hollow: Iterable[NameOrKey] = (),
        forged: Iterable[NameOrKey] = (),
        referral: Iterable[NameOrKey] = (),
        bare_alias: Iterable[NameOrKey] = (),
        authentic: Iterable[NameOrKey] = (),
        slow: Mapping[str, float] | None = None,
        lost: Mapping[str, int] | None = None,
        edns: bool = True,
        ttl: int = 300,
        ttls: Mapping[Key, int] | None = None,
        authoritative: bool = False,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        self.records = Zone(records)
        self.servfail = set(servfail)
        self.refused = set(refused)
        self.timeout = set(timeout)
        """Never answered."""
        self.nxdomain = set(nxdomain)
        self.empty = set(empty)
        """NOERROR, and nothing in it, not even the SOA."""
        self.truncated = set(truncated)
        """Over UDP only the header and TC."""
        self.no_tcp = set(no_tcp)
        """TCP connections are closed when they ask for it."""
        self.wrong_id = set(wrong_id)
        """The only answer has another id, as a forger's would."""
        self.garbage = set(garbage)
        """The answer is no DNS message."""
        self.hollow = set(hollow)
        """Among the records is one without any data."""
        self.forged = set(forged)
        """Over UDP, junk and denials with another id and name come before the answer."""
        self.referral = set(referral)
        """NOERROR with the name servers of somebody else."""
        self.bare_alias = set(bare_alias)
        """A CNAME is answered without what it points to."""
        self.authentic = set(authentic)
        """Answered with AD if the question has AD or DO; so is the negative answer."""
        self.slow = {spelling(name): seconds for name, seconds in (slow or {}).items()}
        """Seconds to wait before the answer."""
        self.lost = {spelling(name): count for name, count in (lost or {}).items()}
        """How many of the next questions are not answered."""
        self.edns = edns
        """False: FORMERR to every question with EDNS."""
        self.ttl = ttl
        self.ttls = {(spelling(name), rdtype): ttl for (name, rdtype), ttl in (ttls or {}).items()}
        """Those of single records, where they differ."""
        self.authoritative = authoritative
        """Answers have AA, as those of a zone's own servers."""
        self.host = host
        self.port = port
        self.queries: list[Query] = []
        """What was asked, in the order of arrival, names in lower case."""
        self._thread = threading.Thread(target=self._run, name="dns-server", daemon=True)
        self._started = threading.Event()
        self._faults: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:port`, as the setting `dns.servers` takes it."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Listen; `port` is known afterwards."""
        self._udp, self._tcp = _listen(self.host, self.port)
        self.port = self._udp.getsockname()[1]
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise RuntimeError("the DNS server did not start")

    def stop(self) -> None:
        """Close everything; answers that are still waiting are not given.

        Raises RuntimeError if the server itself failed: a test must not take that for a time-out.
        """
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_START_SECONDS)
        if self._faults:
            raise RuntimeError("the DNS server could not answer") from self._faults[0]

    def __enter__(self) -> DnsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def asked(self, name: str, rdtype: str) -> int:
        """How often this was asked."""
        return sum(query[:2] == (spelling(name), rdtype) for query in tuple(self.queries))

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve_tcp, sock=self._tcp)
        udp = asyncio.create_task(self._serve_udp())
        self._started.set()
        await self._stopping.wait()
        server.close()
        waiting = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(udp, *waiting, return_exceptions=True)
        self._udp.close()

    async def _serve_udp(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = set[asyncio.Task[None]]()
        while True:
            wire, peer = await loop.sock_recvfrom(self._udp, 65535)
            task = asyncio.create_task(self._answer_udp(wire, peer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer_udp(self, wire: bytes, peer: tuple[str, int]) -> None:
        with self._noting_faults():
            reply = await self._reply(wire, "udp")
            for datagram in (*self._forgeries(wire), reply):
                if datagram is not None:
                    await asyncio.get_running_loop().sock_sendto(self._udp, datagram, peer)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            self._noting_faults(),
            contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
        ):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = await self._reply(await reader.readexactly(length), "tcp")
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()

    @contextlib.contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - `stop` raises it
            self._faults.append(error)

    async def _reply(self, wire: bytes, transport: str) -> bytes | None:
        """The octets to send back, if any."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        name, rdtype = _name(question.name), dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, rdtype, transport))
        await asyncio.sleep(self.slow.get(name, 0))
        if self.lost.get(name, 0) > 0:
            self.lost[name] -= 1
            return None
        if listed(self.timeout, name, rdtype):
            # A connection that stays open and silent, as a datagram without answer.
            await asyncio.sleep(3600)
        if transport == "tcp" and listed(self.no_tcp, name, rdtype):
            return None
        if listed(self.garbage, name, rdtype):
            return wire[:2] + b"\x84\x00" + b"\xff" * 20
        return self._wire(query, self._message(query, name, rdtype), name, rdtype, transport)

    def _forgeries(self, wire: bytes) -> Iterator[bytes]:
        if not self.forged:
            return
        query = dns.message.from_wire(wire)
        question = query.question[0]
        if not listed(self.forged, _name(question.name), dns.rdatatype.to_text(question.rdtype)):
            return
        yield b"junk"
        other_name = dns.message.make_query("elsewhere.test.", question.rdtype, id=query.id)
        other_id = dns.message.make_query(question.name, question.rdtype, id=query.id ^ 1)
        for other in (other_id, other_name):
            denial = dns.message.make_response(other)
            denial.set_rcode(dns.rcode.NXDOMAIN)
            yield denial.to_wire()

    def _message(self, query: dns.message.Message, name: str, rdtype: str) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        if self.authoritative:
            response.flags |= dns.flags.AA
        rcode = self._failure(query, name, rdtype)
        if rcode is not None:
            response.set_rcode(rcode)
        elif listed(self.referral, name, rdtype):
            response.authority.append(self._rrset(name, "NS", ("ns.elsewhere.test",)))
        elif not listed(self.empty, name, rdtype):
            follow = not listed(self.bare_alias, name, rdtype)
            self._fill(response, self.records.way(name, rdtype, follow=follow), follow=follow)
        if listed(self.authentic, name, rdtype) and _wants_ad(query):
            response.flags |= dns.flags.AD
        if listed(self.wrong_id, name, rdtype):
            response.id = query.id ^ 1
        return response

    def _failure(
        self, query: dns.message.Message, name: str, rdtype: str
    ) -> dns.rcode.Rcode | None:
        if query.edns >= 0 and not self.edns:
            return dns.rcode.FORMERR
        if listed(self.servfail, name, rdtype):
            return dns.rcode.SERVFAIL
        if listed(self.refused, name, rdtype):
            return dns.rcode.REFUSED
        if listed(self.nxdomain, name, rdtype):
            return dns.rcode.NXDOMAIN
        return None

    def _fill(self, response: dns.message.Message, way: Way, *, follow: bool) -> None:
        for step in way.steps:
            records = self._rrset(step.owner, step.rdtype, step.values)
            if listed(self.hollow, step.owner, step.rdtype):
                records.add(dns.rdata.GenericRdata(records.rdclass, records.rdtype, b""))
            response.answer.append(records)
        if way.found or way.loops or (way.steps and not follow):
            return
        if not way.exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {_NEGATIVE_TTL}"
        response.authority.append(self._rrset(".", "SOA", (soa,)))

    def _rrset(self, owner: str, rdtype: str, values: Iterable[str]) -> dns.rrset.RRset:
        name = dns.name.root if owner == "." else dns.name.Name([*owner.encode().split(b"."), b""])
        return dns.rrset.from_rdata_list(
            name,
            self.ttls.get((owner, rdtype), self.ttl),
            [rdata_of(rdtype, value) for value in values],
        )

    def _wire(
        self,
        query: dns.message.Message,
        response: dns.message.Message,
        name: str,
        rdtype: str,
        transport: str,
    ) -> bytes:
        if transport == "tcp":
            return response.to_wire(max_size=65535)
        limit = query.payload if query.edns >= 0 else _PLAIN_PAYLOAD
        with contextlib.suppress(dns.exception.TooBig):
            if not listed(self.truncated, name, rdtype):
                return response.to_wire(max_size=limit)
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()


def _name(name: dns.name.Name) -> str:
    return (
        b".".join(label for label in name.labels if label).decode("ascii", "replace").lower() or "."
    )


def _wants_ad(query: dns.message.Message) -> bool:
    return bool(query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO)


def _listen(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port, which with port 0 takes a few tries."""
    for _ in range(_PORT_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((host, port))
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
            continue
        udp.setblocking(False)
        tcp.listen()
        return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


def main() -> None:
    """Serve the records of a file until SIGTERM or SIGINT; the first line printed is the port."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--zone", type=Path, required=True, help="records, see zone.read_records")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    arguments = parser.parse_args()
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)  # in the server's thread too
    with DnsServer(read_records(arguments.zone), port=arguments.port) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        signal.sigwait(endings)


if __name__ == "__main__":
    main()
