"""Who may be connected: the number of sessions, in all and per address, and the end of all of them.

An IPv6 client has a /64 network to choose addresses from, so those are counted as one. Servers
cannot take all places from people who log in, nor people from servers. Life cycle: open → `drain`
(everyone is told to go, new ones are refused) → empty.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Protocol

from prometheus_client import Counter, Gauge

from services.common.config.smtp import Limits
from services.common.mail.reply import SHUTTING_DOWN, TOO_MANY_CONNECTIONS, Reply
from services.ingress.rates import Rates
from services.ingress.suspicion import Suspicion

CONNECTIONS = Gauge(
    "gatepost_ingress_connections",
    "Sessions and TLS handshakes that are open, by listener.",
    ["listener"],
)
SESSIONS = Counter(
    "gatepost_ingress_sessions_total",
    "Sessions that are over, by listener and how they ended.",
    # quit, lost, idle, errors, slow, drained, excess, tls, foreign, failed
    ["listener", "end"],
)

KEPT_FOR_THE_OTHER_ROLE = 10
"""One place in so many: what ports of one role may not use, however many come to them."""

ABORT_S = 0.5
"""Sessions that are ended by force need some turns of the loop."""

Address = IPv4Address | IPv6Address
Source = IPv4Address | IPv6Network


class Visitor(Protocol):
    """A session as the gate sees it."""

    @property
    def address(self) -> Address:
        """The client's address."""

    @property
    def listener_name(self) -> str:
        """Where it came in."""

    @property
    def is_server(self) -> bool:
        """Whether it came to a port for mail between servers."""

    def drain(self) -> None:
        """End the session at once if no mail is in hand, otherwise after it."""

    def abort(self) -> None:
        """End the session whatever it does."""


class Gate:
    """The sessions of this process."""

    def __init__(self, suspicion: Suspicion, clock: Callable[[], float] = time.monotonic) -> None:
        self._suspicion = suspicion
        self._clock = clock
        self._rates = Rates()
        self.is_draining = False
        self._visitors: set[Visitor] = set()
        self._per_source: Tally[Source] = Tally()
        self._servers = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, visitor: Visitor, limits: Limits) -> Reply | None:
        """Let a session in; a reply if there is no room for it. Every one that enters leaves."""
        source = source_of(visitor.address)
        refusal = self._refusal(visitor, source, limits)
        if visitor.is_server:
            self._suspicion.note(visitor.address)
        self._add(visitor, source)
        return refusal

    def _add(self, visitor: Visitor, source: Source) -> None:
        self._visitors.add(visitor)
        self._per_source[source] += 1
        self._servers += visitor.is_server
        self._empty.clear()
        CONNECTIONS.labels(visitor.listener_name).inc()

    def __contains__(self, visitor: Visitor) -> bool:
        """Whether somebody is in."""
        return visitor in self._visitors

    def hand_over(self, visitor: Visitor, successor: Visitor) -> None:
        """Let a session have the place of the handshake that it began with."""
        if visitor in self._visitors:
            self._visitors.remove(visitor)
            self._visitors.add(successor)
        else:
            # Given up in the same moment: the session ends at once, but what enters leaves.
            self._add(successor, source_of(successor.address))

    @property
    def loses_addresses(self) -> bool:
        """Whether the clients' addresses seem to be lost on their way to us."""
        return self._suspicion.is_certain

    def _refusal(self, visitor: Visitor, source: Source, limits: Limits) -> Reply | None:
        if self.is_draining:
            return SHUTTING_DOWN
        inside = len(self._visitors)
        of_this_role = self._servers if visitor.is_server else inside - self._servers
        most = limits.connections - limits.connections // KEPT_FOR_THE_OTHER_ROLE
        if inside >= limits.connections or of_this_role >= most:
            return TOO_MANY_CONNECTIONS
        if is_exempt(visitor.address, limits):
            return None
        rate = limits.connections_per_minute
        if self._per_source[source] >= limits.connections_per_address or (
            rate and not self._rates.allows(source, per_minute=rate, now=self._clock())
        ):
            return TOO_MANY_CONNECTIONS
        return None

    def leave(self, visitor: Visitor, end: str) -> None:
        """A session is over."""
        self._visitors.discard(visitor)
        self._servers -= visitor.is_server
        source = source_of(visitor.address)
        self._per_source[source] -= 1
        if not self._per_source[source]:
            del self._per_source[source]
        CONNECTIONS.labels(visitor.listener_name).dec()
        SESSIONS.labels(visitor.listener_name, end).inc()
        if not self._visitors:
            self._empty.set()

    async def drain(self, *, patience_s: float) -> None:
        """Tell everyone to go, wait for mail in hand, then end what is left."""
        self.is_draining = True
        for visitor in tuple(self._visitors):
            visitor.drain()
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        except TimeoutError:
            for visitor in tuple(self._visitors):
                visitor.abort()
            await asyncio.wait({asyncio.ensure_future(self._empty.wait())}, timeout=ABORT_S)


def source_of(address: Address) -> Source:
    """Who an address counts as."""
    if isinstance(address, IPv6Address):
        return IPv6Network((int(address) >> 64 << 64, 64))
    return address


def is_exempt(address: Address, limits: Limits) -> bool:
    """Whether limits per address do not apply."""
    return any(address in network for network in limits.exempt_networks)
