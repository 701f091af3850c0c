"""What the servers of a zone themselves say, each of them, with no cache in between.

RFC 1034 §4.2 (zones and their servers), §3.6.2 (aliases). For whoever has to know that a record is
visible to the whole world, and not only in our resolver: the zone of the name is found by its NS
records, every address of every name server is asked, without recursion, and an alias is followed
into the zone that it leads to.

Guarantees: raises nothing but CancelledError because of what a name, a server or the network did;
what cannot be asked is in the answer, so that "everywhere" is never said of less. Bounded in
servers, steps and time.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import dns.flags

from services.common.dns import exchange
from services.common.dns.answer import Answer, IPAddress, RecordType, Resolver, Status
from services.common.dns.lookup import addresses
from services.common.dns.name import InvalidNameError, canonical, printable
from services.common.dns.reply import name_of, read_reply, text_of
from services.common.dns.servers import DNS_PORT, Server, parse_server

MAX_ADDRESSES: Final = 64
"""Real zones have up to 26 (13 names in two families)."""
MAX_ALIASES: Final = 4
ATTEMPTS: Final = 2
"""Datagrams get lost; a server that is silent twice is not there."""

# This machine has no way to that family of addresses, which says nothing about the server.
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What one server said."""

    server: str
    """Name and address, for people."""
    answer: Answer
    """TEMPORARY if it gave no answer that counts; `detail` says why."""
    alias: str = ""
    """The name that the question was sent on to; what is there is in `AllAnswers.aliases`."""


@dataclass(frozen=True, slots=True)
class AllAnswers:
    """What all servers of a zone said about a name."""

    name: str
    zone: str = ""
    servers: tuple[ServerAnswer, ...] = ()
    problem: str = ""
    """Why this is not all that should have been asked; blank if it is."""
    aliases: tuple[AllAnswers, ...] = ()
    """For every alias that some server gave: the answers of the servers of that name."""


class Authority(Protocol):
    """Asks the servers of zones."""

    async def ask_all(self, name: str, rdtype: RecordType) -> AllAnswers:
        """What every server that is responsible for `name` says about it."""
        ...


class ZoneServers:
    """The `Authority` of production."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        servers: Sequence[str] = (),
        attempt_timeout: float = 2.0,
        deadline: float = 8.0,
        port: int = DNS_PORT,
    ) -> None:
        """`servers` (as in `DnsOptions.servers`), if there are any, are asked instead of those that
        the NS records name; times in seconds; `port` is where name servers listen. Raises
        ValueError for an impossible server.
        """
        self._resolver = resolver
        self._servers = tuple(parse_server(text) for text in servers)
        self._attempt_timeout = attempt_timeout
        self._deadline = deadline
        self._port = port

    async def ask_all(self, name: str, rdtype: RecordType) -> AllAnswers:
        """See `Authority.ask_all`."""
        try:
            asked = canonical(name)
        except InvalidNameError as error:
            return AllAnswers(printable(name), problem=f"not a domain name: {error}")
        try:
            async with asyncio.timeout(self._deadline):
                return await self._ask_zone(asked, rdtype, steps=MAX_ALIASES)
        except TimeoutError:
            return AllAnswers(asked, problem=f"not all servers answered in {self._deadline:g} s")

    async def _ask_zone(self, name: str, rdtype: RecordType, *, steps: int) -> AllAnswers:
        zone, problem = "", ""
        if self._servers:
            # Named by the operator, who may mean resolvers, so they are told to resolve.
            places = [(str(server), server) for server in self._servers]
            failures: list[ServerAnswer] = []
        else:
            zone, hosts, problem = await self._find_zone(name)
            places, failures = await self._find_places(hosts, name, rdtype)
            if not problem and len(places) > MAX_ADDRESSES:
                problem = f"{zone} has {len(places)} name server addresses; not all were asked"
        given = await asyncio.gather(
            *(self._ask(label, server, name, rdtype) for label, server in places[:MAX_ADDRESSES])
        )
        servers = (*_reachable(given), *failures)
        targets = sorted({answer.alias for answer in servers if answer.alias})
        if targets and not steps:
            return AllAnswers(name, zone, servers, "too long a chain of CNAMEs")
        aliases = [await self._ask_zone(target, rdtype, steps=steps - 1) for target in targets]
        return AllAnswers(name, zone, servers, problem, tuple(aliases))

    async def _find_zone(self, name: str) -> tuple[str, tuple[str, ...], str]:
        """The zone that `name` is in, its name servers, or what was wrong."""
        labels = name.split(".")
        # Not up to a top-level domain: its servers would say no more than that nothing is here.
        for skipped in range(max(1, len(labels) - 1)):
            zone = ".".join(labels[skipped:])
            found = await self._resolver.query(zone, RecordType.NS)
            if found.status is Status.TEMPORARY:
                return zone, (), f"the name servers of {zone} cannot be looked up: {found.detail}"
            if found.status is Status.OK and found.canonical == zone:
                return zone, tuple(sorted(str(record) for record in found.records)), ""
        return "", (), f"no name servers were found for {name}, nor for any domain above it"

    async def _find_places(
        self, hosts: Sequence[str], name: str, rdtype: RecordType
    ) -> tuple[list[tuple[str, Server]], list[ServerAnswer]]:
        """Where the hosts are, and the answers of those that are nowhere."""
        found = await asyncio.gather(*(addresses(self._resolver, host) for host in hosts))
        places: list[tuple[str, Server]] = []
        failures: list[ServerAnswer] = []
        for host, lookup in zip(hosts, found, strict=True):
            if lookup.status is not Status.OK:
                why = lookup.detail or "it has no address"
                failures.append(ServerAnswer(host, _failure(name, rdtype, why)))
            places += [(_label(host, each), Server(each, self._port)) for each in lookup.records]
        return places, failures

    async def _ask(self, label: str, server: Server, name: str, rdtype: RecordType) -> _Given:
        target = name_of(name)
        recursive = bool(self._servers)
        trouble, no_way = "", False
        for _ in range(ATTEMPTS):
            try:
                message = await exchange.ask(
                    server,
                    target,
                    rdtype,
                    seconds=self._attempt_timeout,
                    recursive=recursive,
                )
            except exchange.ExchangeError as error:
                trouble, no_way = str(error), _is_no_way(error)
                if isinstance(error, exchange.NoAnswerError):
                    continue
                break
            reply = read_reply(message, target)
            if not recursive and reply.status.definite and not message.flags & dns.flags.AA:
                trouble = "is not authoritative for the zone"
                break
            detail = printable(reply.detail)
            answer = Answer(name, rdtype, reply.status, reply.records, ttl=reply.ttl, detail=detail)
            alias = text_of(reply.target) if reply.open_ended else ""
            return _Given(ServerAnswer(label, answer, alias), server.address, no_way=False)
        failed = ServerAnswer(label, _failure(name, rdtype, trouble))
        return _Given(failed, server.address, no_way=no_way)


@dataclass(frozen=True, slots=True)
class _Given:
    said: ServerAnswer
    address: IPAddress
    no_way: bool


def _reachable(given: Sequence[_Given]) -> list[ServerAnswer]:
    """The answers, without those of a family of addresses that this machine cannot reach at all, if
    the same servers were reached in the other."""
    lost = {each.address.version for each in given if each.no_way}
    if all(each.no_way for each in given):
        return [each.said for each in given]
    reached = {_host(each.said) for each in given if not each.no_way}
    return [
        each.said
        for each in given
        if not (each.address.version in lost and each.no_way and _host(each.said) in reached)
    ]


def _host(said: ServerAnswer) -> str:
    return said.server.partition(" ")[0]


def _label(host: str, address: IPAddress) -> str:
    return f"{host} ({address})"


def _failure(name: str, rdtype: RecordType, why: str) -> Answer:
    return Answer(name, rdtype, Status.TEMPORARY, detail=printable(why))


def _is_no_way(error: exchange.ExchangeError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_WAY
