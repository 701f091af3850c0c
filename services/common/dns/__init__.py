"""DNS behind one protocol. The only package that imports dnspython.

`answer` holds the values and the `Resolver` protocol, `lookup` the typed lookups on top of it.
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
from services.common.dns.lookup import BOTH_FAMILIES, Lookup, addresses, mx, ptr, txt

__all__ = [
    "BOTH_FAMILIES",
    "Answer",
    "IPAddress",
    "Lookup",
    "MxRecord",
    "Record",
    "RecordType",
    "Resolver",
    "SoaRecord",
    "Status",
    "TlsaRecord",
    "addresses",
    "mx",
    "ptr",
    "txt",
]
