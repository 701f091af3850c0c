"""The resolver of every service: asks recursive DNS servers, over dnspython, and remembers what
they said.

RFC 1034 §5.3.1 (stub resolvers), RFC 2308 (negative answers), RFC 9520 (failures are kept too).

Life of a lookup: the cache is asked; then a lookup of the same name under way is joined; otherwise
a task of its own is started, waits for one of the slots, and tries server after server until one
gives a definite answer or the deadline passes. The task belongs to nobody: a caller that is
cancelled leaves it to the others, and to the cache.

Guarantees: `query` ends within the deadline and raises nothing but CancelledError; a cached answer
is given without switching tasks; slots, waiting lookups and cache are bounded. A TTL of zero is
stretched to `min_ttl` (Deviation: RFC 1035 §3.2.1), since one mail asks for the same records
several times.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prometheus_client import Counter, Histogram

from services.common.dns import exchange
from services.common.dns.answer import Answer, RecordType, Resolver, Status
from services.common.dns.cache import AnswerCache
from services.common.dns.name import InvalidNameError, canonical, printable
from services.common.dns.options import DnsOptions
from services.common.dns.reply import Reply, Target, name_of, read_reply, text_of
from services.common.dns.servers import Servers, parse_server, system_servers
from services.common.log import ERROR, event
from services.common.turns import Turns

log = logging.getLogger(__name__)

QUERIES = Counter(
    "gatepost_dns_queries_total",
    "Lookups that were put to DNS servers, by outcome.",
    ["rdtype", "status"],  # RecordType, Status
)
CACHE_HITS = Counter("gatepost_dns_cache_hits_total", "Lookups answered from the cache.")
SECONDS = Histogram(
    "gatepost_dns_query_seconds",
    "Time that a lookup took which was put to DNS servers.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

# Aliases followed from message to message. Recursive servers follow them themselves and stop at
# about as many.
MAX_ALIASES = 8

# Seconds; with less left until the deadline a question would be asked for nothing.
_SHORTEST_ATTEMPT = 0.001


@dataclass(slots=True)
class _Journey:
    """One lookup under way: until when it may last, and what went wrong so far."""

    name: str
    rdtype: RecordType
    ends: float
    troubles: list[str] = field(default_factory=list)

    def temporary(self, trouble: str = "") -> Answer:
        troubles = dict.fromkeys([*self.troubles, trouble] if trouble else self.troubles)
        detail = printable(f"{self.rdtype} {self.name}: {'; '.join(troubles)}")
        return Answer(self.name, self.rdtype, Status.TEMPORARY, detail=detail)


class DnsResolver(Resolver):
    """The `Resolver` of production. Made once per process, inside or outside the event loop; closed
    at the end."""

    def __init__(
        self,
        options: DnsOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        turns: Turns | None = None,
    ) -> None:
        """`clock` (seconds, monotonic) is what answers expire by; lookups take `turns` with
        whatever else takes some. Raises ValueError for an impossible server."""
        self._options = options or DnsOptions()
        servers = tuple(parse_server(text) for text in self._options.servers)
        self._servers = Servers(servers or system_servers(), clock=clock)
        self._cache = AnswerCache(max_entries=self._options.cache_entries, clock=clock)
        self._turns = turns or Turns()
        self._slots = asyncio.Semaphore(self._options.max_concurrent)
        self._under_way: dict[tuple[str, RecordType], asyncio.Task[Answer]] = {}

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """See `Resolver.query`."""
        known = self.cached(name, rdtype)
        if known is not None:
            return known
        try:
            asked = canonical(name)
        except InvalidNameError as error:
            shown = printable(name, limit=100)
            detail = f"{rdtype} {shown}: not a domain name, {error}"
            return Answer(shown, rdtype, Status.NXDOMAIN, detail=detail)
        task = self._under_way.get((asked, rdtype)) or self._start(asked, rdtype)
        if task is None:
            detail = f"{rdtype} {asked}: not asked, too many lookups are waiting"
            return Answer(asked, rdtype, Status.TEMPORARY, detail=detail)
        # Unlike awaiting the task itself: when this caller is cancelled, the task goes on.
        await asyncio.wait((task,))
        # A thousand may have waited for this answer, and each goes on with it.
        await self._turns.next()
        if task.cancelled():
            detail = f"{rdtype} {asked}: given up, the resolver is closed"
            return Answer(asked, rdtype, Status.TEMPORARY, detail=detail)
        return task.result()

    def cached(self, name: str, rdtype: RecordType) -> Answer | None:
        """See `Resolver.cached`."""
        known = self._cache.get(name, rdtype)
        if known is None:
            try:
                asked = canonical(name)
            except InvalidNameError:
                return None
            known = self._cache.get(asked, rdtype) if asked != name else None
        if known is not None:
            CACHE_HITS.inc()
        return known

    async def close(self) -> None:
        """End the lookups under way; whoever waits for one is told TEMPORARY. The resolver can be
        used again."""
        tasks = tuple(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, name: str, rdtype: RecordType) -> asyncio.Task[Answer] | None:
        if len(self._under_way) >= self._options.max_pending:
            return None
        key = (name, rdtype)
        task = asyncio.create_task(self._look_up(name, rdtype), name=f"dns {rdtype} {name}")
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task

    async def _look_up(self, name: str, rdtype: RecordType) -> Answer:
        began = time.perf_counter()
        deadline = self._options.deadline
        journey = _Journey(name, rdtype, asyncio.get_running_loop().time() + deadline)
        try:
            async with asyncio.timeout_at(journey.ends), self._slots:
                answer = await self._follow(journey)
        except TimeoutError:
            answer = journey.temporary(f"no answer by the deadline of {deadline:.1f} s")
        except Exception as error:  # noqa: BLE001 - whatever a message made of us, it is TEMPORARY
            event(log, ERROR, "DNS lookup failed unexpectedly", name=name, exc_info=True)
            answer = journey.temporary(f"internal error ({type(error).__name__})")
        SECONDS.observe(time.perf_counter() - began)
        QUERIES.labels(rdtype.value, answer.status.value).inc()
        self._cache.put(answer, seconds=self._options.keep_seconds(answer))
        return answer

    async def _follow(self, journey: _Journey) -> Answer:
        """The answer at the end of the aliases, where the server has not gone there itself."""
        target = name_of(journey.name)
        visited: set[Target] = set()
        ttl: int | None = None
        authentic = True
        while len(visited) <= MAX_ALIASES:
            visited.add(target)
            reply = await self._ask_all(target, journey)
            if reply is None:
                return journey.temporary()
            ttl = reply.ttl if ttl is None else min(ttl, reply.ttl)
            authentic = authentic and reply.authentic
            if not reply.open_ended:
                return _answer(journey, reply, ttl=ttl, authentic=authentic)
            target = reply.target
            if target in visited:
                return journey.temporary(f"a CNAME loop through {text_of(target)}")
        return journey.temporary(f"a chain of more than {MAX_ALIASES} CNAMEs")

    async def _ask_all(self, target: Target, journey: _Journey) -> Reply | None:
        """The first definite reply; None once every server has failed. A server that failed is not
        asked again, a silent one is, while time lasts. Raises TimeoutError when it is over."""
        loop = asyncio.get_running_loop()
        candidates = self._servers.in_order()
        while candidates:
            for server in tuple(candidates):
                timeout = min(self._options.attempt_timeout, journey.ends - loop.time())
                if timeout < _SHORTEST_ATTEMPT:
                    raise TimeoutError
                await self._turns.next()
                try:
                    message = await exchange.ask(
                        server, target, journey.rdtype, seconds=timeout, turns=self._turns
                    )
                except exchange.ExchangeError as error:
                    journey.troubles.append(f"{server}: {error}")
                    self._servers.failed(server, str(error))
                    if not isinstance(error, exchange.NoAnswerError):
                        candidates.remove(server)
                    continue
                self._servers.answered(server)
                reply = read_reply(message, target)
                if reply.status.definite:
                    return replace(reply, detail=f"{server} {reply.detail}")
                journey.troubles.append(f"{server} {reply.detail}")
                candidates.remove(server)
        return None


def _answer(journey: _Journey, reply: Reply, *, ttl: int, authentic: bool) -> Answer:
    found = reply.status is Status.OK
    return Answer(
        journey.name,
        journey.rdtype,
        reply.status,
        reply.records,
        canonical=text_of(reply.target) if found else "",
        authentic=authentic,
        ttl=ttl,
        detail="" if found else printable(f"{journey.rdtype} {journey.name}: {reply.detail}"),
    )
