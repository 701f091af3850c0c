"""Which DNS servers are asked, and in which order.

A server is an IP address and a port, never a name: looking up the server that looks things up is a
circle. A server that did not answer is not forgotten but asked last for a while; otherwise a dead
first server would cost every lookup a whole attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from services.common.dns.answer import IPAddress
from services.common.log import INFO, WARNING, event

log = logging.getLogger(__name__)

DNS_PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
REST_SECONDS = 15.0  # long against an attempt, short against an outage that an operator looks at

_ALLOWED = "an IP address, address:port or [address]:port"


@dataclass(frozen=True, slots=True)
class Server:
    """Where questions go."""

    address: IPAddress
    port: int = DNS_PORT

    def __str__(self) -> str:
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else str(self.address)
        return f"{host}:{self.port}"


def parse_server(text: str) -> Server:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. Raises ValueError naming
    what is allowed."""
    try:
        host, port = _split(text.strip())
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("no such port")
        return Server(ip_address(host), int(port))
    except ValueError as error:
        raise ValueError(f"DNS server {text!r} is not {_ALLOWED}") from error


def system_servers(resolv_conf: Path = RESOLV_CONF) -> tuple[Server, ...]:
    """The `nameserver` lines of resolv.conf; the local host if there are none, as resolv.conf(5)
    says.

    Search lists and options are left unread on purpose: all our names are absolute. Read once, at
    the start.
    """
    try:
        lines = resolv_conf.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    servers: list[Server] = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                servers.append(Server(ip_address(words[1])))
            except ValueError:
                event(log, WARNING, "not an address", file=str(resolv_conf), nameserver=words[1])
    return tuple(servers) or (Server(ip_address("127.0.0.1")),)


class Servers:
    """The servers in the order of choice: those that answer first, as configured; the others after
    them."""

    def __init__(self, servers: Sequence[Server], *, clock: Callable[[], float]) -> None:
        self._servers = tuple(servers)
        self._clock = clock
        self._resting_until: dict[Server, float] = {}

    def in_order(self) -> list[Server]:
        """All servers, the one to ask first in front."""
        now = self._clock()
        return sorted(self._servers, key=lambda server: self._resting_until.get(server, 0.0) > now)

    def failed(self, server: Server, why: str) -> None:
        """The server did not answer: ask it last for a while."""
        if server not in self._resting_until:
            event(log, INFO, "DNS server does not answer", server=str(server), reason=why)
        self._resting_until[server] = self._clock() + REST_SECONDS

    def answered(self, server: Server) -> None:
        """The server answered, whatever it said."""
        if self._resting_until.pop(server, None) is not None:
            event(log, INFO, "DNS server answers again", server=str(server))


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("unbalanced brackets")
        return host, rest[1:] if rest else str(DNS_PORT)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, str(DNS_PORT)
