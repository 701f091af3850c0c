"""How long a client waits for the 250 after the final dot, when there is little to do.

One mail at a time over connections of its own, with a pause between them, so that nothing queues:
what load does to it is told by the mails a second.
"""

from __future__ import annotations

import socket
import statistics
import time
from dataclasses import dataclass
from typing import Final

from bench.contender import Contender
from bench.mail import RECIPIENT, SENDER
from bench.names import LOOPBACK, SENDER_HOST

_PAUSE_SECONDS: Final = 0.02
_REPLY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles, in milliseconds."""

    p50: float
    p95: float
    p99: float


def measure(contender: Contender, content: bytes, count: int) -> list[float]:
    """Seconds from the dot to the reply, of so many mails."""
    wire = content.replace(b"\n", b"\r\n")
    found = []
    for _ in range(count):
        found.append(_send(contender.port, wire))
        time.sleep(_PAUSE_SECONDS)
    return found


def quantiles(seconds: list[float]) -> Latency:
    """Of all that was measured."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Latency(cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000)


def _send(port: int, content: bytes) -> float:
    with socket.create_connection((LOOPBACK, port), timeout=_REPLY_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = connection.makefile("rb")
        _expect(replies.readline(), b"220")
        for command in (
            f"HELO {SENDER_HOST}",
            f"MAIL FROM:<{SENDER}>",
            f"RCPT TO:<{RECIPIENT}>",
            "DATA",
        ):
            connection.sendall(f"{command}\r\n".encode())
            _expect(replies.readline(), b"354" if command == "DATA" else b"250")
        connection.sendall(content)
        began = time.perf_counter()
        connection.sendall(b".\r\n")
        reply = replies.readline()
        took = time.perf_counter() - began
        _expect(reply, b"250")
        connection.sendall(b"QUIT\r\n")
        replies.readline()
        return took


def _expect(reply: bytes, code: bytes) -> None:
    if not reply.startswith(code):
        raise RuntimeError(f"expected {code!r}: {reply!r}")
