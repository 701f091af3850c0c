"""The certificates that a peer showed in a TLS handshake, whether they were verified or not."""

from __future__ import annotations

import ssl
from typing import Protocol, cast


class _Certificate(Protocol):
    def public_bytes(self, format: int) -> bytes: ...


class _Connection(Protocol):
    """What Python before 3.13 has below its public objects."""

    def get_unverified_chain(self) -> list[_Certificate] | None: ...


_DER = 2
"""_ssl.ENCODING_DER"""


def chain_of(connection: ssl.SSLObject) -> list[bytes]:
    """The chain in DER, the peer's own certificate first; empty if it showed none."""
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return cast("list[bytes]", public() or [])
    # The same call has been there since 3.10, one object below. There is no other way to see more
    # than the first certificate of a chain that OpenSSL was not asked to verify.
    below = cast(_Connection, connection._sslobj)  # type: ignore[attr-defined]  # noqa: SLF001
    return [certificate.public_bytes(_DER) for certificate in below.get_unverified_chain() or []]
