"""Sessions and addresses made of pieces that are each half right, in any order.

Some octets are changed. All of it follows from a seed, which so names a case.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_ADDRESSES = [
    b"<a@example.net>", b"<>", b"<you@example.test>", b"<x@elsewhere.example>", b"<postmaster>",
    b"<\"a b\"@example.net>", b"<@x:a@b>", b"<@a,@b.example:c@example.test>", b"<a@[192.0.2.1]>",
    b"<a@[IPv6:2001:db8::1]>", b"<\xc3\xa4@example.net>", b"<a@b\xc3\xbccher.example>",
    b"<a@\xe4>",
    b"<\"a\\\"b\"@example.test>", b"<a%b@example.test>", b"<a@b@example.test>",
    b"<a@example.test.>",
    b"<(c)a@example.test>", b"<=?utf-8?q?a?=@example.test>", b"<a@\xef\xbc\xa5xample.test>",
    b"<\"\"@example.test>", b"< a@example.test>", b"<a@xn--bcher-kva.example>", b"<", b"<a@>",
    b"<" + b"l" * 64 + b"@example.test>", b"<a@" + b"d." * 126 + b"d>", b"<.a@example.test>",
]  # fmt: skip
_PARAMETERS = [
    b"", b"", b"", b" SIZE=10", b" BODY=8BITMIME", b" SMTPUTF8", b" RET=FULL", b" ENVID=x+20y",
    b" NOTIFY=NEVER", b" NOTIFY=SUCCESS,DELAY", b" ORCPT=rfc822;x", b" ORCPT=utf-8;\xc3\xa4",
    b" SIZE=99999999999999999999", b" AUTH=<>", b" SIZE=1 SIZE=2", b" X", b" =",
    b" BODY=BINARYMIME",
]  # fmt: skip
_COMMANDS = [
    b"EHLO client.example.net\r\n", b"HELO [192.0.2.1]\r\n", b"EHLO \r\n", b"EHLO a\tb\r\n",
    b"DATA\r\n", b"DATA x\r\n", b"BDAT 99999999\r\n", b"BDAT x\r\n", b"BDAT 3 FIRST\r\n",
    b"RSET\r\n", b"NOOP\r\n", b"VRFY x\r\n", b"HELP\r\n", b"QUIT\r\n", b"AUTH PLAIN AHgAeQ==\r\n",
    b"AUTH LOGIN\r\n", b"EXPN x\r\n", b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
]  # fmt: skip
_CONTENT = [
    b"\r\n", b"\n", b"\r", b".", b".\r\n", b"\r\n.\r\n", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n",
    b"\n.\r\n", b"\r.\r", b"..x\r\n", b"\0", b"Subject: x\r\n", b"\r\n\r\ntext\r\n", b"\xff\xfe",
    b"From: a@example.net\r\n", b"x" * 700, b"y" * 3000 + b"\r\n", b"Received: x\r\n" * 20,
    b"DKIM-Signature: c=relaxed/relaxed; l=3\r\n", b"ARC-Message-Signature: i=1; c=\r\n",
]  # fmt: skip
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V4 = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + struct.pack("!HH", 4711, 25)
_PROXY = [
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n", b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n",
    b"PROXY UNKNOWN\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY ", b"", b"PROXY" * 40,
    _V2 + struct.pack("!BBH", 0x21, 0x11, len(_V4)) + _V4,
    _V2 + struct.pack("!BBH", 0x21, 0x11, len(_V4) + 6) + _V4 + b"\x04\x00\x03abc",
    _V2 + struct.pack("!BBH", 0x20, 0x00, 0), _V2 + struct.pack("!BBH", 0x21, 0x31, 2) + b"ab",
    _V2 + struct.pack("!BBH", 0x21, 0x11, 65535), _V2[:7],
]  # fmt: skip

LOGIN = b"EHLO client.example.net\r\nAUTH PLAIN AHlvdUBleGFtcGxlLnRlc3QAc2VjcmV0\r\n"


@dataclass(frozen=True, slots=True)
class OddSession:
    """What one client sends to which listener."""

    listener: str
    octets: bytes
    segments: Sequence[bytes]
    """The same octets, cut somewhere."""


def odd_session(seed: int) -> OddSession:
    """The session of a seed."""
    source = random.Random(seed)
    listener = source.choices(["plain", "proxied", "submissions"], [12, 4, 1])[0]
    octets = b"".join(_pieces(source))
    if source.random() < 0.25:
        octets = _changed(source, octets)
    # The handshake of TLS and the login of a submission are not what is looked at here.
    octets = {"plain": b"", "proxied": _header(source), "submissions": LOGIN}[listener] + octets
    return OddSession(listener, octets, _cut(source, octets))


def odd_path(seed: int) -> str:
    """What somebody may write behind FROM: or TO:, parameters included."""
    source = random.Random(seed)
    octets = source.choice(_ADDRESSES) + b"".join(source.choices(_PARAMETERS, k=3))
    for _ in range(source.randrange(4)):
        octets = _changed(source, octets)
    if source.random() < 0.2:
        octets = octets.replace(b"@", b"@" + source.choice(_ADDRESSES)[1:-1] + b"@", 1)
    return octets.decode("utf-8", errors="replace" if source.random() < 0.9 else "surrogateescape")


def _pieces(source: random.Random) -> list[bytes]:
    start = [b"EHLO client.example.net\r\n", _mail(source), _rcpt(source), b"DATA\r\n"]
    if source.random() < 0.5:
        start = [start[0], b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<you@example.test>\r\n"]
        start.append(source.choice([b"DATA\r\n", b"BDAT 4\r\nab\r\n"]))
    pieces = start[: source.randrange(5)]
    makers = [_mail, _rcpt, _rcpt, _bdat, _command, _command, _content, _content]
    return pieces + [source.choice(makers)(source) for _ in range(source.randrange(1, 25))]


def _mail(source: random.Random) -> bytes:
    verb = source.choice([b"MAIL FROM:", b"MAIL FROM:", b"mail from: ", b"MAIL TO:"])
    return verb + source.choice(_ADDRESSES) + source.choice(_PARAMETERS) + b"\r\n"


def _rcpt(source: random.Random) -> bytes:
    verb = source.choice([b"RCPT TO:", b"RCPT TO:", b"rcpt to:", b"RCPT FROM:"])
    line = verb + source.choice(_ADDRESSES) + source.choice(_PARAMETERS) + b"\r\n"
    return line * source.choice([1, 1, 1, 3])


def _bdat(source: random.Random) -> bytes:
    """A chunk whose size is right, mostly."""
    chunk = b"".join(source.choices(_CONTENT, k=source.randrange(4)))
    size = max(0, len(chunk) + source.choice([0, 0, 0, 0, 1, -1]))
    return b"BDAT %d%s\r\n%s" % (size, source.choice([b"", b" LAST", b" last"]), chunk)


def _command(source: random.Random) -> bytes:
    return source.choice(_COMMANDS)


def _content(source: random.Random) -> bytes:
    return source.choice(_CONTENT)


def _header(source: random.Random) -> bytes:
    header = source.choice(_PROXY)
    return _changed(source, header) if header and source.random() < 0.3 else header


def _changed(source: random.Random, octets: bytes) -> bytes:
    """With some octets exchanged, put in, taken out or given twice."""
    at = source.randrange(len(octets) + 1)
    count = source.randrange(1, 8)
    end = at + source.choice([0, count])
    other = source.choice([b"", source.randbytes(count), octets[at : at + count] * 2])
    return octets[:at] + other + octets[end:]


def _cut(source: random.Random, octets: bytes) -> list[bytes]:
    cuts = sorted(source.randrange(len(octets) + 1) for _ in range(source.randrange(8)))
    return [octets[start:end] for start, end in pairwise([0, *cuts, len(octets)])]
