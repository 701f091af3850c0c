"""A DNS server that answers by rules, in a process of its own and with little work.

    with name_server() as address: …
    python -m bench.name_server

The first label of a name under `example.org` says what it has: a word of letters, then a number.
Everything under `slow.test` is not answered at all; what follows no rule does not exist. It never
compresses, checks nothing and knows no EDNS beyond ignoring it: good enough for one honest client.
"""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv4Address
from struct import pack

A, MX, TXT, SOA = 1, 15, 16, 6
LEAVES = 9
"""Includes of one large SPF tree: one less than may be."""

_TTL = 300
_NAME = re.compile(r"(?P<kind>[a-z]+)(?P<number>[0-9-]*)\.(?:_domainkey\.)?example\.org")
_HOSTS = {"mx": "192.0.2.1", "h": "192.0.2.1", "hangmx": "192.0.2.200", "loopmx": "127.0.0.1"}
_EXCHANGES = {"hang": "hangmx.example.org", "loop": "loopmx.example.org"}
_NETWORKS = "ip4:203.0.113.0/24 ip4:192.0.2.0/24 -all"


def records(name: str, rdtype: int) -> list[bytes] | None:
    """The data of the records; None for a name that does not exist."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind, number = match["kind"], match["number"]
    if rdtype == A:
        return [IPv4Address(_HOSTS[kind]).packed] if kind in _HOSTS else []
    if rdtype == MX:
        exchange = _EXCHANGES.get(kind, "mx.example.org")
        return [] if kind in _HOSTS else [pack("!H", 10) + wire_name(exchange)]
    text = _text(kind, number) if rdtype == TXT else ""
    return [_strings(text)] if text else []


def _text(kind: str, number: str) -> str:
    if kind in ("warm", "c", "hang", "loop"):
        return f"v=spf1 include:i{number}.example.org -all"
    if kind == "i":
        return f"v=spf1 {_NETWORKS}"
    if kind == "t":
        leaves = " ".join(f"include:l{number}-{leaf}.example.org" for leaf in range(LEAVES))
        return f"v=spf1 {leaves} -all"
    if kind == "l":
        return "v=spf1 " + " ".join(f"ip4:198.51.100.{host}" for host in range(60))
    sizes = {"huge": (16384, 17), "odd": (2048, 2000), "sound": (4096, 32)}
    return _key(*sizes[kind]) if kind in sizes else ""


@lru_cache
def _key(bits: int, exponent_bits: int) -> str:
    """A key record of any size, which nobody has the other half of."""
    body = _integer(bits) + _integer(exponent_bits)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(_der(0x30, body)).decode()}"


def _integer(bits: int) -> bytes:
    number = (1 << (bits - 1)) | 1
    return _der(0x02, number.to_bytes(bits // 8 + 1, "big"))


def _der(tag: int, body: bytes) -> bytes:
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    head = size if len(body) < 128 else bytes((0x80 | len(size),)) + size
    return bytes((tag,)) + head + body


def _strings(text: str) -> bytes:
    parts = [text[at : at + 255].encode() for at in range(0, len(text), 255)]
    return b"".join(bytes((len(part),)) + part for part in parts)


def wire_name(name: str) -> bytes:
    """A name as it stands in a message."""
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def reply(query: bytes) -> bytes | None:
    """The answer to a question; None where there is to be none."""
    end = query.index(b"\0", 12) + 5
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace").lower())
        at += 1 + query[at]
    name, question = ".".join(labels), query[12:end]
    if name.endswith("slow.test"):
        return None
    found = records(name, int.from_bytes(query[end - 4 : end - 2], "big"))
    answer = b"".join(
        b"\xc0\x0c" + question[-4:] + pack("!IH", _TTL, len(data)) + data for data in found or ()
    )
    soa = pack("!HHIH", SOA, 1, _TTL, 22) + b"\0\0" + pack("!5I", 1, 1, 1, 1, _TTL)
    negative = b"" if found else b"\0" + soa
    flags = 0x8180 | (3 if found is None else 0)
    head = query[:2] + pack("!5H", flags, 1, len(found or ()), int(not found), 0)
    return head + question + answer + negative


@contextmanager
def name_server() -> Iterator[str]:
    """Its address, as `dns.servers` takes it."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def main() -> None:
    """Print the port and answer until terminated. Only over UDP: every answer fits."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        sock.bind(("127.0.0.1", 0))
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            query, peer = sock.recvfrom(4096)
            answer = reply(query)
            if answer is not None:
                sock.sendto(answer, peer)


if __name__ == "__main__":
    main()
