"""The DNS record with which a domain asks for reports on encryption (pure): RFC 8460 §3.

Guarantees: what is returned is an address of the strict parser, or a host name and a path of
visible ASCII. Passed over: other schemes, ports but that of HTTPS, user names in URIs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from services.common.mail.address import AddressError, Mailbox, parse_domain, parse_mailbox

_HTTPS_PORT: Final = 443
MAX_ENDPOINTS: Final = 3
"""Of a domain: a record must not make us write to everybody."""

_RECORD: Final = re.compile(rb"v=TLSRPTv1[ \t]*;[ \t]*rua=([!-:<-~]+(?:[ \t]*,[ \t]*[!-:<-~]+)*)")
"""The fields after `rua` are for others."""


@dataclass(frozen=True, slots=True)
class WebPlace:
    """Where reports are posted to, over HTTPS."""

    host: str
    path: str


Endpoint: TypeAlias = Mailbox | WebPlace


def endpoints_in(texts: Sequence[bytes]) -> list[Endpoint]:
    """Who is told, by the TXT records of `_smtp._tls.<domain>`; nobody without just one record."""
    records = [text for text in texts if text.startswith(b"v=TLSRPTv1")]
    match = _RECORD.match(records[0]) if len(records) == 1 else None
    if match is None:
        return []
    uris = (uri.strip(" \t") for uri in match[1].decode("ascii").split(","))
    found = dict.fromkeys(each for each in map(_endpoint, uris) if each is not None)
    return list(found)[:MAX_ENDPOINTS]


def _endpoint(uri: str) -> Endpoint | None:
    scheme, _, rest = uri.partition(":")
    try:
        match scheme.lower():
            case "mailto":
                mailbox = parse_mailbox(unquote(rest, errors="strict"))
                return mailbox if mailbox.domain else None
            case "https":
                return _web_place(uri)
            case _:
                return None
    except (AddressError, ValueError):
        return None


def _web_place(uri: str) -> WebPlace | None:
    parts = urlsplit(uri)
    if parts.username is not None or parts.port not in (None, _HTTPS_PORT):
        return None
    query = f"?{parts.query}" if parts.query else ""
    return WebPlace(parse_domain(parts.hostname or ""), f"{parts.path or '/'}{query}")
