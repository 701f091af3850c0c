"""The file with a domain's MTA-STS policy, over HTTPS: RFC 8461 §3.3.

Guarantees, beside those of `https` (§3.3 and §10.2 ask for them): at most `MAX_POLICY_OCTETS` are
read. Whatever the other side does, the outcome is the file or a `FetchFailed`.
"""

from __future__ import annotations

from typing import Final

from services.common.mail.printable import one_line
from services.delivery.tls.https import (
    MAX_DETAIL_OCTETS,
    Https,
    HttpsFailed,
    Response,
)
from services.delivery.tls.report import TlsResult
from services.delivery.tls.sts_policy import MAX_POLICY_OCTETS

_BLOCK_OCTETS: Final = 16 * 1024
_OK: Final = 200


class FetchFailed(Exception):
    """There is no policy to be had; `result` is what that is for TLSRPT."""

    def __init__(self, text: str, result: TlsResult = TlsResult.STS_POLICY_FETCH_ERROR) -> None:
        super().__init__(one_line(text, limit=MAX_DETAIL_OCTETS))
        self.result = result


class PolicyHosts:
    """Asks the policy hosts of domains."""

    def __init__(self, https: Https) -> None:
        self._https = https

    async def fetch(self, domain: str) -> bytes:
        """The policy file of a domain (canonical). Raises `FetchFailed`."""
        host = f"mta-sts.{domain}"
        try:
            async with self._https.asked("GET", host, "/.well-known/mta-sts.txt") as response:
                _check(host, response)
                return await _body(host, response)
        except HttpsFailed as error:
            failed = TlsResult.STS_POLICY_FETCH_ERROR
            result = TlsResult.STS_WEBPKI_INVALID if error.certificate else failed
            raise FetchFailed(str(error), result) from error


def _check(host: str, response: Response) -> None:
    if response.status != _OK:
        # Redirects among them: §3.3 forbids to follow.
        raise FetchFailed(f"{host}: answers with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{host}: the policy is compressed, which nobody asked for")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "text/plain":
        raise FetchFailed(f"{host}: the policy is not text/plain", TlsResult.STS_POLICY_INVALID)


async def _body(host: str, response: Response) -> bytes:
    body = bytearray()
    async for block in response.content.iter_chunked(_BLOCK_OCTETS):
        body += block
        if len(body) > MAX_POLICY_OCTETS:
            text = f"{host}: the policy is larger than {MAX_POLICY_OCTETS} octets"
            raise FetchFailed(text, TlsResult.STS_POLICY_INVALID)
    return bytes(body)
