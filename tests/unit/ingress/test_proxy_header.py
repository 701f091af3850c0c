"""PROXY headers: who is connected, and what is no header."""

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.proxy_header import Proxied, ProxyError, ProxyHeader

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def _v2(command: int, family: int, body: bytes) -> bytes:
    return _SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def _fed(wire: bytes) -> tuple[Proxied | None, bytes]:
    """The client, and what was left of the wire."""
    header = ProxyHeader()
    while header.wanted:
        block, wire = wire[: header.wanted], wire[header.wanted :]
        if not block:
            raise ProxyError("too short")
        header.feed(block)
    return header.client, wire


_PORTS = struct.pack("!HH", 4711, 25)
_V4 = ip_address("192.0.2.7").packed + ip_address("198.51.100.1").packed + _PORTS
_V6 = ip_address("2001:db8::7").packed + ip_address("::1").packed + _PORTS
_MAPPED = ip_address("::ffff:192.0.2.7").packed + bytes(16) + _PORTS

HEADERS = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever it says\r\n", None),
    (_v2(0x21, 0x11, _V4), "192.0.2.7"),
    (_v2(0x21, 0x11, _V4 + b"\x04\x00\x03abc"), "192.0.2.7"),
    (_v2(0x21, 0x21, _V6), "2001:db8::7"),
    (_v2(0x21, 0x21, _MAPPED), "192.0.2.7"),
    (_v2(0x20, 0x00, b""), None),
    (_v2(0x20, 0x11, _V4), None),
]


@pytest.mark.parametrize(("wire", "address"), HEADERS)
def test_headers_are_read_exactly_to_their_end(wire: bytes, address: str | None) -> None:
    client, rest = _fed(wire + b"\x16\x03\x01 the handshake")
    assert client == (Proxied(ip_address(address), 4711) if address else None)
    assert rest == b"\x16\x03\x01 the handshake"


REFUSED = [
    b"EHLO client.example\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25 \r\n",
    b"PROXY TCP4 2001:db8::7 ::1 4711 25\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.700 198.51.100.1 4711 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 25\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 25\r\n",
    b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
    b"proxy TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
    b"PROXY TCP4 \xff192.0.2.7 198.51.100.1 4711 25\r\n",
    _v2(0x11, 0x11, _V4),
    _v2(0x22, 0x11, _V4),
    _v2(0x21, 0x31, _V4),
    _v2(0x21, 0x00, b""),
    _v2(0x21, 0x11, _V4[:11]),
    _v2(0x21, 0x21, _V4),
    _v2(0x21, 0x11, bytes(5000)),
    b"\r\n\r\n\x00\r\nQUIX\n!!!!",
]


@pytest.mark.parametrize("wire", REFUSED)
def test_anything_else_is_no_header(wire: bytes) -> None:
    with pytest.raises(ProxyError):
        _fed(wire)


@given(
    wire=st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=80).map(lambda rest: b"PROXY TCP4 " + rest + b"\r\n"),
        st.binary(max_size=80).map(lambda rest: _SIGNATURE + rest),
    )
)
def test_garbage_raises_nothing_else(wire: bytes) -> None:
    with contextlib.suppress(ProxyError):
        _fed(wire)
