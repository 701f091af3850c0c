"""HTTPS to hosts that strangers name. The one user of aiohttp here.

Guarantees: the address that is connected to is one that was looked up by our resolver and found
not to be forbidden, and the certificate is verified for the host's name; no redirect is followed,
no proxy used, no cookie kept, no cache asked; everything has ended within `seconds`. Whatever the
other side does, the outcome is a response or a `HttpsFailed`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.common.dns import IPAddress, Resolver, Status, addresses
from services.common.mail.printable import one_line
from services.common.networks import is_forbidden

Networks = Sequence[IPv4Network | IPv6Network]
Response = aiohttp.ClientResponse

HTTPS_PORT: Final = 443
SECONDS: Final = 20.0
"""For everything from the first DNS question on. RFC 8461 §3.3 suggests a minute for a policy, but
mail waits for it."""

MAX_ADDRESSES: Final = 4
MAX_DETAIL_OCTETS: Final = 200
_MAX_LINE_OCTETS: Final = 4096


class HttpsFailed(Exception):
    """There is no response to be had."""

    def __init__(self, text: str, *, certificate: bool = False) -> None:
        """`certificate`: the host could not show that it is the one."""
        super().__init__(one_line(text, limit=MAX_DETAIL_OCTETS))
        self.certificate = certificate


class Https:
    """A client that keeps nothing between requests."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        allowed: Callable[[], Networks],
        context: Callable[[], ssl.SSLContext],
        port: int = HTTPS_PORT,
        seconds: float = SECONDS,
    ) -> None:
        """`allowed` are networks that would be forbidden otherwise; `context` verifies the host,
        and may raise OSError."""
        self._resolver = resolver
        self._allowed = allowed
        self._context = context
        self._port = port
        self._seconds = seconds

    @asynccontextmanager
    async def asked(
        self,
        method: str,
        host: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The response of a host (canonical). Raises `HttpsFailed`, also while it is read."""
        port = "" if self._port == HTTPS_PORT else f":{self._port}"
        url = f"https://{host}{port}{path}"
        try:
            async with asyncio.timeout(self._seconds):
                session = self._session(await self._addresses(host))
                request = session.request(
                    method, url, data=body, headers=headers, allow_redirects=False
                )
                async with session, request as response:
                    yield response
        except TimeoutError:
            raise HttpsFailed(f"{host}: no answer within {self._seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"{host}: {_certificate_text(error)}"
            raise HttpsFailed(text, certificate=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise HttpsFailed(f"{host}: {_short(error)}") from error

    async def _addresses(self, host: str) -> list[IPAddress]:
        found = await addresses(self._resolver, host)
        if found.status is not Status.OK:
            raise HttpsFailed(found.detail or f"{host}: no address")
        permitted = [each for each in found.records if not is_forbidden(each, self._allowed())]
        if not permitted:
            raise HttpsFailed(f"{host}: its addresses are in networks that are not connected to")
        return permitted[:MAX_ADDRESSES]

    def _session(self, found: Sequence[IPAddress]) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_Answered(found), ssl=self._context(), force_close=True, use_dns_cache=False
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
            max_line_size=_MAX_LINE_OCTETS,
            max_field_size=_MAX_LINE_OCTETS,
        )


def _certificate_text(error: aiohttp.ClientConnectorCertificateError) -> str:
    reason = error.certificate_error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {reason.verify_message}"
    return f"its certificate is not valid: {reason}"


def _short(error: Exception) -> str:
    """What is wrong, without the addresses and objects that aiohttp puts into its texts."""
    reason = getattr(error, "os_error", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


class _Answered(AbstractResolver):
    """Gives aiohttp the addresses that were checked: no other name or address is ever asked for."""

    def __init__(self, found: Sequence[IPAddress]) -> None:
        self._found = found

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See `AbstractResolver`."""
        return [
            ResolveResult(
                hostname=host,
                host=str(each),
                port=port,
                family=socket.AF_INET6 if isinstance(each, IPv6Address) else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for each in self._found
        ]

    async def close(self) -> None:
        """See `AbstractResolver`."""
