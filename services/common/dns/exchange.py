"""One question to one server: UDP with EDNS, TCP if the answer did not fit.

RFC 1035 §4.2, RFC 6891 (EDNS), RFC 7766 (TCP), RFC 5452 (a random port and a random id for every
question, and only an answer from the right place, with the right id and question, counts). A
datagram that is not the answer is passed over and the wait goes on: who does not know the id must
not be able to end it.

Plain sockets rather than asyncio's transports: a connected UDP socket hears of an unreachable port
at once, drops datagrams from elsewhere in the kernel, and is closed the moment that the wait is
cancelled.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv6Address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from services.common.dns.answer import RecordType
from services.common.dns.reply import Target
from services.common.dns.servers import Server

UDP_PAYLOAD = 1232  # octets that cross every real network unfragmented (DNS flag day 2020)
_MAX_DATAGRAM = 65535
# Passing over junk costs this process's time. So many pieces in one wait are an attack, or a broken
# server.
_MAX_STRAYS = 100

_RDATATYPES = {rdtype: dns.rdatatype.from_text(rdtype) for rdtype in RecordType}

_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP})


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
) -> dns.message.Message:
    """The server's answer, whatever its response code. Raises ExchangeError; `seconds`
    covers it all.

    A server that does not know EDNS is asked again without (RFC 6891 §7). `recursive` is whether it
    shall ask others on our behalf.
    """
    flags = dns.flags.RD | dns.flags.AD if recursive else dns.flags.AD
    try:
        async with asyncio.timeout(seconds):
            answer = await _ask(server, _question(target, rdtype, edns=True, flags=flags))
            if answer.rcode() in _NO_EDNS:
                answer = await _ask(server, _question(target, rdtype, edns=False, flags=flags))
            return answer
    except TimeoutError as error:
        raise NoAnswerError(f"no valid answer in {seconds:.1f} s") from error
    except OSError as error:
        raise ExchangeError(error.strerror or type(error).__name__) from error


def _question(
    target: Target, rdtype: RecordType, *, edns: bool, flags: int
) -> dns.message.QueryMessage:
    # AD in a question asks for AD in the answer, without the signatures that DO would bring (RFC
    # 6840 §5.7).
    return dns.message.make_query(
        target,
        _RDATATYPES[rdtype],
        use_edns=edns,
        payload=UDP_PAYLOAD if edns else None,
        flags=flags,
    )


async def _ask(server: Server, question: dns.message.Message) -> dns.message.Message:
    answer = await _ask_udp(server, question)
    if answer.flags & dns.flags.TC:
        return await _ask_tcp(server, question)
    return answer


async def _ask_udp(server: Server, question: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as sock:
        sock.connect(_place(server))
        await loop.sock_sendall(sock, question.to_wire())
        for _ in range(_MAX_STRAYS):
            answer = _read_datagram(await loop.sock_recv(sock, _MAX_DATAGRAM), question)
            if answer is not None and question.is_response(answer):
                return answer
    raise ExchangeError(f"{_MAX_STRAYS} datagrams that do not answer the question")


async def _ask_tcp(server: Server, question: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, _place(server))
        await loop.sock_sendall(sock, question.to_wire(prepend_length=True))
        length = int.from_bytes(await _receive(sock, 2), "big")
        answer = _read_stream(await _receive(sock, length))
    if not question.is_response(answer):
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


def _read_datagram(datagram: bytes, question: dns.message.Message) -> dns.message.Message | None:
    """The message, without its records if it says that it is cut off; None for what nobody sent who
    knows the id. Raises ExchangeError for an answer that cannot be read."""
    try:
        return dns.message.from_wire(datagram, raise_on_truncation=True)
    except dns.message.Truncated as cut:
        message: dns.message.Message = cut.message()  # type: ignore[no-untyped-call]
        return message
    except Exception as error:
        if datagram[:2] != question.id.to_bytes(2, "big"):
            return None
        raise _unreadable(error) from error


def _read_stream(data: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(data)
    except Exception as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ExchangeError:
    """One broken record makes a message unreadable: without it the rest could be misunderstood."""
    return ExchangeError(f"malformed answer ({type(error).__name__})")


def _socket(server: Server, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if isinstance(server.address, IPv6Address) else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def _place(server: Server) -> tuple[str, int]:
    return str(server.address), server.port
