"""The file with a domain's MTA-STS policy, over HTTPS: RFC 8461 §3.3. The one user of aiohttp here.

Guarantees: the address that is connected to is one that was looked up by our resolver and found
not to be forbidden, and the certificate is verified for the policy host's name; no redirect is
followed, no proxy used, no cookie kept, no cache asked (§3.3 and §10.2); at most
`MAX_POLICY_OCTETS` are read, and all of it within `FETCH_SECONDS`. Whatever the other side does,
the outcome is the file or a `FetchFailed`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.common.dns import IPAddress, Resolver, Status, addresses
from services.common.mail.printable import one_line
from services.common.networks import is_forbidden
from services.delivery.tls.report import TlsResult
from services.delivery.tls.sts_policy import MAX_POLICY_OCTETS

Networks = Sequence[IPv4Network | IPv6Network]

HTTPS_PORT: Final = 443
FETCH_SECONDS: Final = 20.0
"""For everything from the first DNS question on. §3.3 suggests a minute, but mail waits for it."""

MAX_ADDRESSES: Final = 4
MAX_DETAIL_OCTETS: Final = 200
_BLOCK_OCTETS: Final = 16 * 1024
_MAX_LINE_OCTETS: Final = 4096
_OK: Final = 200


class FetchFailed(Exception):
    """There is no policy to be had; `result` is what that is for TLSRPT."""

    def __init__(self, text: str, result: TlsResult = TlsResult.STS_POLICY_FETCH_ERROR) -> None:
        super().__init__(one_line(text, limit=MAX_DETAIL_OCTETS))
        self.result = result


class PolicyHosts:
    """Asks the policy hosts of domains."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        allowed: Callable[[], Networks],
        context: Callable[[], ssl.SSLContext],
        port: int = HTTPS_PORT,
        seconds: float = FETCH_SECONDS,
    ) -> None:
        """`allowed` are networks that would be forbidden otherwise; `context` verifies the host,
        and may raise OSError."""
        self._resolver = resolver
        self._allowed = allowed
        self._context = context
        self._port = port
        self._seconds = seconds

    async def fetch(self, domain: str) -> bytes:
        """The policy file of a domain (canonical). Raises `FetchFailed`."""
        host = f"mta-sts.{domain}"
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._addresses(host)
                return await self._get(host, found)
        except TimeoutError:
            raise FetchFailed(f"{host}: no policy within {self._seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"{host}: {_certificate_text(error)}"
            raise FetchFailed(text, TlsResult.STS_WEBPKI_INVALID) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(f"{host}: {_short(error)}") from error

    async def _addresses(self, host: str) -> list[IPAddress]:
        found = await addresses(self._resolver, host)
        if found.status is not Status.OK:
            raise FetchFailed(found.detail or f"{host}: no address")
        permitted = [each for each in found.records if not is_forbidden(each, self._allowed())]
        if not permitted:
            raise FetchFailed(f"{host}: its addresses are in networks that are not connected to")
        return permitted[:MAX_ADDRESSES]

    async def _get(self, host: str, found: Sequence[IPAddress]) -> bytes:
        connector = aiohttp.TCPConnector(
            resolver=_Answered(found), ssl=self._context(), force_close=True, use_dns_cache=False
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
            max_line_size=_MAX_LINE_OCTETS,
            max_field_size=_MAX_LINE_OCTETS,
        )
        port = "" if self._port == HTTPS_PORT else f":{self._port}"
        url = f"https://{host}{port}/.well-known/mta-sts.txt"
        async with session, session.get(url, allow_redirects=False) as response:
            _check(host, response)
            return await _body(host, response)


def _check(host: str, response: aiohttp.ClientResponse) -> None:
    if response.status != _OK:
        # Redirects among them: §3.3 forbids to follow.
        raise FetchFailed(f"{host}: answers with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{host}: the policy is compressed, which nobody asked for")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "text/plain":
        raise FetchFailed(f"{host}: the policy is not text/plain", TlsResult.STS_POLICY_INVALID)


async def _body(host: str, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in response.content.iter_chunked(_BLOCK_OCTETS):
        body += block
        if len(body) > MAX_POLICY_OCTETS:
            text = f"{host}: the policy is larger than {MAX_POLICY_OCTETS} octets"
            raise FetchFailed(text, TlsResult.STS_POLICY_INVALID)
    return bytes(body)


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
