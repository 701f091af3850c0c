"""DNS behind one protocol. The only package that imports dnspython.

`answer` holds the values and the `Resolver` protocol, `lookup` the typed lookups on top of it,
`resolver` the implementation: `name` (spelling), `servers` (whom to ask), `exchange` (asking one),
`reply` (what it said), `cache`. `authority` asks the servers of a zone themselves.
"""

from services.common.dns.answer import (
    Answer,
    IPAddress,
    MxRecord,
    Record,
    RecordType,
    Resolver,
    SoaRecord,
    Status,
    TlsaRecord,
)
from services.common.dns.authority import AllAnswers, Authority, ServerAnswer, ZoneServers
from services.common.dns.lookup import BOTH_FAMILIES, Lookup, addresses, mx, ptr, txt
from services.common.dns.name import InvalidNameError, canonical
from services.common.dns.options import DnsOptions
from services.common.dns.resolver import DnsResolver

__all__ = [
    "BOTH_FAMILIES",
    "AllAnswers",
    "Answer",
    "Authority",
    "DnsOptions",
    "DnsResolver",
    "IPAddress",
    "InvalidNameError",
    "Lookup",
    "MxRecord",
    "Record",
    "RecordType",
    "Resolver",
    "ServerAnswer",
    "SoaRecord",
    "Status",
    "TlsaRecord",
    "ZoneServers",
    "addresses",
    "canonical",
    "mx",
    "ptr",
    "txt",
]
