"""Who may be connected: the number of sessions, in all and per address, and the end of all of them.

An IPv6 client has a /64 network to choose addresses from, so those are counted as one. Life cycle:
open → `drain` (everyone is told to go, new ones are refused) → empty.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Protocol

from prometheus_client import Counter, Gauge

from services.common.config.smtp import Limits
from services.common.mail.reply import SHUTTING_DOWN, TOO_MANY_CONNECTIONS, Reply

CONNECTIONS = Gauge(
    "gatepost_ingress_connections", "Sessions that are open, by listener.", ["listener"]
)
SESSIONS = Counter(
    "gatepost_ingress_sessions_total",
    "Sessions that are over, by listener and how they ended.",
    # quit, lost, idle, errors, slow, drained, excess, tls, foreign, failed
    ["listener", "end"],
)

Address = IPv4Address | IPv6Address


class Visitor(Protocol):
    """A session as the gate sees it."""

    @property
    def address(self) -> Address:
        """The client's address."""

    @property
    def listener_name(self) -> str:
        """Where it came in."""

    def drain(self) -> None:
        """End the session at once if no mail is in hand, otherwise after it."""

    def abort(self) -> None:
        """End the session whatever it does."""


class Gate:
    """The sessions of this process."""

    def __init__(self) -> None:
        self.is_draining = False
        self._visitors: set[Visitor] = set()
        self._per_source: Tally[Address | IPv6Network] = Tally()
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, visitor: Visitor, limits: Limits) -> Reply | None:
        """Let a session in; a reply instead if there is no room for it. Every one that enters
        leaves.
        """
        source = _source(visitor.address)
        refusal = None
        if self.is_draining:
            refusal = SHUTTING_DOWN
        elif (
            len(self._visitors) >= limits.connections
            or self._per_source[source] >= limits.connections_per_address
        ):
            refusal = TOO_MANY_CONNECTIONS
        self._visitors.add(visitor)
        self._per_source[source] += 1
        self._empty.clear()
        CONNECTIONS.labels(visitor.listener_name).inc()
        return refusal

    def leave(self, visitor: Visitor, end: str) -> None:
        """A session is over."""
        self._visitors.discard(visitor)
        source = _source(visitor.address)
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


def _source(address: Address) -> Address | IPv6Network:
    if isinstance(address, IPv6Address):
        return IPv6Network((int(address) >> 64 << 64, 64))
    return address
