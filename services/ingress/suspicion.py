"""Whether the clients' addresses are lost on their way to us.

A load balancer or a cluster that rewrites source addresses makes every client look like a node: SPF
and HELO checks then judge the wrong address, and limits per address hit everybody. That cannot be
proven from here, but mail between servers that comes from private addresses alone, connection after
connection, is a strong sign. Submission is not looked at: people may well sit in the same network.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from prometheus_client import Gauge

from services.common.log import WARNING, event

_log = logging.getLogger(__name__)

WINDOW: Final = 100
"""Connections that the ratio is made of. A few internal senders among strangers do not matter."""

WARN_AGAIN_S: Final = 3600.0

LOST_TEXT: Final = (
    "client addresses seem to be lost: all mail comes from private addresses. SPF and HELO checks "
    "are meaningless; set externalTrafficPolicy: Local or use the PROXY protocol"
)

RATIO = Gauge(
    "gatepost_ingress_client_address_suspect_ratio",
    "Part of the last 100 connections of mail servers that came from private addresses, 0 to 1.",
)


class Suspicion:
    """The last connections of mail servers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._suspect = 0
        self._warned_at: float | None = None

    @property
    def ratio(self) -> float:
        """How many of them look like nodes, pods or load balancers."""
        return self._suspect / len(self._last) if self._last else 0.0

    @property
    def is_certain(self) -> bool:
        """Whether all of a whole window do."""
        return self._suspect == WINDOW

    def note(self, address: IPv4Address | IPv6Address) -> None:
        """A mail server has connected."""
        if address.is_loopback:
            return  # this very machine: a try, or a probe
        if len(self._last) == WINDOW:
            self._suspect -= self._last[0]
        self._last.append(not address.is_global)
        self._suspect += not address.is_global
        RATIO.set(self.ratio)
        if self.is_certain:
            self._warn(address)

    def _warn(self, address: IPv4Address | IPv6Address) -> None:
        now = self._clock()
        if self._warned_at is None or now - self._warned_at >= WARN_AGAIN_S:
            self._warned_at = now
            event(_log, WARNING, LOST_TEXT, last=str(address))
