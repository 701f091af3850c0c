"""One question to one server: UDP with EDNS, TCP if the answer did not fit.

RFC 1035 §4.2, RFC 6891 (EDNS), RFC 7766 (TCP), RFC 5452 (a random port and a random id for every
question, and only an answer from the right place, with the right id and question, counts). A
datagram that is not the answer is passed over and the wait goes on: who does not know the id must
not be able to end it.

The question is written here, since it is always the same but for a name and two numbers; what comes
back is read by dnspython, in a turn of its own where there is much to do (`Turns`).

Plain sockets rather than asyncio's transports: a connected UDP socket hears of an unreachable port
at once, drops datagrams from elsewhere in the kernel, and is closed the moment that the wait is
cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address
from struct import pack

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from services.common.dns.answer import RecordType
from services.common.dns.reply import Target
from services.common.dns.servers import Server
from services.common.turns import Turns

UDP_PAYLOAD = 1232  # octets that cross every real network unfragmented (DNS flag day 2020)
_MAX_DATAGRAM = 65535
# Passing over junk costs this process's time. So many pieces in one wait are an attack, or a broken
# server.
_MAX_STRAYS = 100

_RDATATYPES = {rdtype: dns.rdatatype.from_text(rdtype) for rdtype in RecordType}

_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP})

# RFC 6891 §6.1.2: the root, the type, our payload as class, version 0 and no flags as TTL, no data.
_EDNS = b"\0" + pack("!HHIH", dns.rdatatype.OPT, UDP_PAYLOAD, 0, 0)

_TXT_IN = pack("!2H", dns.rdatatype.TXT, dns.rdataclass.IN)

# Some servers do not repeat the question when they say one of these.
_BARE = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})


class ExchangeError(Exception):
    """The server gave no usable answer. The message is one printable line without the server's
    name."""


class NoAnswerError(ExchangeError):
    """Nothing valid came in time; asking again may help."""


async def ask(
    server: Server,
    target: Target,
    rdtype: RecordType,
    *,
    seconds: float,
    recursive: bool = True,
    turns: Turns | None = None,
) -> dns.message.Message:
    """The server's answer, whatever its response code. Raises ExchangeError; `seconds`
    covers it all.

    A server that does not know EDNS is asked again without (RFC 6891 §7). `recursive` is whether it
    shall ask others on our behalf.
    """
    # AD in a question asks for AD in the answer, without the signatures that DO would bring (RFC
    # 6840 §5.7).
    flags = dns.flags.RD | dns.flags.AD if recursive else dns.flags.AD
    turns = turns or Turns()
    try:
        async with asyncio.timeout(seconds):
            answer = await _ask(server, Question.of(target, rdtype, flags=flags), turns)
            if answer.rcode() in _NO_EDNS:
                plain = Question.of(target, rdtype, flags=flags, edns=False)
                answer = await _ask(server, plain, turns)
            return answer
    except TimeoutError as error:
        raise NoAnswerError(f"no valid answer in {seconds:.1f} s") from error
    except OSError as error:
        raise ExchangeError(error.strerror or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Question:
    """One question on the wire (RFC 1035 §4.1)."""

    number: int
    """What only who saw the question knows."""
    target: Target
    rdtype: dns.rdatatype.RdataType
    wire: bytes

    @classmethod
    def of(cls, target: Target, rdtype: RecordType, *, flags: int, edns: bool = True) -> Question:
        """A question with a number of its own."""
        number, kind = secrets.randbits(16), _RDATATYPES[rdtype]
        head = pack("!6H", number, flags, 1, 0, 0, int(edns))
        name = b"".join(bytes((len(label),)) + label for label in target.labels)
        asked = name + pack("!2H", kind, dns.rdataclass.IN)
        return cls(number, target, kind, head + asked + (_EDNS if edns else b""))

    def is_answered_by(self, message: dns.message.Message) -> bool:
        """Whether a message is an answer to this question and to no other."""
        if message.id != self.number or not message.flags & dns.flags.QR:
            return False
        if message.opcode() != dns.opcode.QUERY:
            return False
        if not message.question:
            return message.rcode() in _BARE
        repeated = message.question[0]
        same_type = repeated.rdtype == self.rdtype and repeated.rdclass == dns.rdataclass.IN
        return len(message.question) == 1 and same_type and repeated.name == self.target


async def _ask(server: Server, question: Question, turns: Turns) -> dns.message.Message:
    answer = await _ask_udp(server, question, turns)
    if answer.flags & dns.flags.TC:
        return await _ask_tcp(server, question, turns)
    return answer


async def _ask_udp(server: Server, question: Question, turns: Turns) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as sock:
        sock.connect(_place(server))
        await loop.sock_sendall(sock, question.wire)
        for _ in range(_MAX_STRAYS):
            datagram = await loop.sock_recv(sock, _MAX_DATAGRAM)
            await turns.next()
            answer = _read_datagram(datagram, question)
            if answer is not None and question.is_answered_by(answer):
                return answer
    raise ExchangeError(f"{_MAX_STRAYS} datagrams that do not answer the question")


async def _ask_tcp(server: Server, question: Question, turns: Turns) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, _place(server))
        await loop.sock_sendall(sock, len(question.wire).to_bytes(2, "big") + question.wire)
        length = int.from_bytes(await _receive(sock, 2), "big")
        data = await _receive(sock, length)
        await turns.next()
        answer = _read_stream(data)
    if not question.is_answered_by(answer):
        raise ExchangeError("an answer to another question over TCP")
    return answer


async def _receive(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        block = await loop.sock_recv(sock, count - len(data))
        if not block:
            raise ExchangeError("closed the TCP connection early")
        data += block
    return bytes(data)


def _read_datagram(datagram: bytes, question: Question) -> dns.message.Message | None:
    """The message, without its records if it says that it is cut off; None for what nobody sent who
    knows the number. Raises ExchangeError for an answer that cannot be read."""
    if datagram[:2] != question.number.to_bytes(2, "big"):
        return None
    try:
        return _parsed(datagram)
    except dns.message.Truncated as cut:
        message: dns.message.Message = cut.message()  # type: ignore[no-untyped-call]
        return message
    except Exception as error:
        raise _unreadable(error) from error


def _read_stream(data: bytes) -> dns.message.Message:
    try:
        return _parsed(data, may_be_cut=False)
    except Exception as error:
        raise _unreadable(error) from error


def _parsed(wire: bytes, *, may_be_cut: bool = True) -> dns.message.Message:
    """The message in these octets. Raises whatever dnspython does.

    A TXT record without any text, not even an empty one, is passed over: the format forbids it (RFC
    1035 §3.3.14), some servers send it all the same, and nothing can be misunderstood without it.
    """
    try:
        return dns.message.from_wire(wire, raise_on_truncation=may_be_cut)
    except dns.exception.FormError:
        lenient = dns.message.from_wire(
            wire, raise_on_truncation=may_be_cut, continue_on_error=True
        )
        if all(_is_hollow_txt(wire, error.offset) for error in lenient.errors):
            return lenient
        raise


def _is_hollow_txt(wire: bytes, offset: int) -> bool:
    """Whether a TXT record's data of no octets would begin here."""
    # Before the data: type, class, TTL and length (RFC 1035 §3.2.1).
    return wire[offset - 10 : offset - 6] == _TXT_IN and wire[offset - 2 : offset] == b"\0\0"


def _unreadable(error: Exception) -> ExchangeError:
    """Any other broken record makes a message unreadable: without it the rest could be
    misunderstood."""
    return ExchangeError(f"malformed answer ({type(error).__name__})")


def _socket(server: Server, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if isinstance(server.address, IPv6Address) else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def _place(server: Server) -> tuple[str, int]:
    return str(server.address), server.port
