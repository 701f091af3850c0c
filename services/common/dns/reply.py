"""What a DNS message says about the question it answers, in our words.

RFC 1034 §3.6.2 (aliases), RFC 2308 §2 (negative answers, and how to tell a referral from one), RFC
8914 (the server's own explanation). Pure: a message in, a value out. Anything unexpected reads as
TEMPORARY.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

from services.common.dns.answer import MxRecord, Record, SoaRecord, Status, TlsaRecord
from services.common.dns.name import printable

Target: TypeAlias = dns.name.Name
"""A name as dnspython has it: what is asked for next, octet for octet."""

_MAX_EXPLANATION = 120  # characters of the server's own words that are passed on


@dataclass(frozen=True, slots=True)
class Reply:
    """What one message says. `status`, `records`, `ttl` and `authentic` as in `Answer`."""

    status: Status
    target: Target
    """The name at the end of the aliases in the message; the name asked for if there are none."""
    records: tuple[Record, ...] = ()
    ttl: int = 0
    authentic: bool = False
    open_ended: bool = False
    """The message ends in an alias and is silent about its target: that one has to be asked for."""
    detail: str = ""


def read_reply(message: dns.message.Message, name: Target) -> Reply:
    """Judge a message that is known to answer a question about `name`. Raises nothing."""
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _failed(name, "says " + dns.rcode.to_text(message.rcode()) + _explanation(message))
    if not isinstance(message, dns.message.QueryMessage):
        return _failed(name, "answers with something else")
    try:
        chain = message.resolve_chaining()
    except dns.message.ChainTooLong:
        return _failed(name, "a CNAME loop, or too long a chain of them")
    except dns.exception.DNSException as error:
        return _failed(name, f"contradicts itself ({type(error).__name__})")
    if chain.answer is not None:
        try:
            records = tuple(record_of(rdata) for rdata in chain.answer)
        except TypeError:
            return _failed(name, "answers about another type than was asked for")
        return _reply(message, chain, Status.OK, records=records)
    return _read_negative(message, chain, name)


def _read_negative(
    message: dns.message.QueryMessage, chain: dns.message.ChainingResult, name: Target
) -> Reply:
    has_soa = _authority_holds(message, dns.rdatatype.SOA)
    if message.rcode() == dns.rcode.NXDOMAIN:
        reply = _reply(message, chain, Status.NXDOMAIN, detail="says that there is no such name")
    elif chain.cnames and not has_soa:
        return _reply(message, chain, Status.NO_DATA, open_ended=True)
    elif _authority_holds(message, dns.rdatatype.NS) and not has_soa:
        return _failed(name, "refers to other servers: it does not resolve for us")
    else:
        reply = _reply(message, chain, Status.NO_DATA, detail="says that there is no such record")
    # Without a SOA there is no negative TTL, and nothing to keep the answer by (RFC 2308 §5).
    return reply if has_soa else replace(reply, ttl=0)


def record_of(rdata: dns.rdata.Rdata) -> Record:
    """A record as a value of ours. Raises TypeError for a type that `RecordType` does not name."""
    match rdata:
        case dns.rdtypes.IN.A.A():
            return IPv4Address(rdata.address)
        case dns.rdtypes.IN.AAAA.AAAA():
            return IPv6Address(rdata.address)
        case dns.rdtypes.ANY.MX.MX():
            return MxRecord(rdata.preference, text_of(rdata.exchange))
        case dns.rdtypes.ANY.TXT.TXT():
            return b"".join(rdata.strings)
        case dns.rdtypes.ANY.PTR.PTR() | dns.rdtypes.ANY.CNAME.CNAME() | dns.rdtypes.ANY.NS.NS():
            return text_of(rdata.target)
        case dns.rdtypes.ANY.TLSA.TLSA():
            return TlsaRecord(rdata.usage, rdata.selector, rdata.mtype, bytes(rdata.cert))
        case dns.rdtypes.ANY.SOA.SOA():
            return SoaRecord(text_of(rdata.mname), rdata.serial, rdata.minimum)
    raise TypeError(f"no value for a record of type {dns.rdatatype.to_text(rdata.rdtype)}")


def text_of(name: Target) -> str:
    """A name in our spelling. Odd octets come out escaped, so the text is printable and never a
    name to ask for."""
    return name.to_text(omit_final_dot=True).lower()


def name_of(text: str) -> Target:
    """The dnspython name of a canonical one, taken label by label: nothing in it is an escape."""
    labels = () if text == "." else text.encode("ascii").split(b".")
    return dns.name.Name((*labels, b""))


def _reply(
    message: dns.message.Message,
    chain: dns.message.ChainingResult,
    status: Status,
    *,
    records: tuple[Record, ...] = (),
    open_ended: bool = False,
    detail: str = "",
) -> Reply:
    return Reply(
        status,
        chain.canonical_name,
        records,
        ttl=chain.minimum_ttl,
        authentic=bool(message.flags & dns.flags.AD),
        open_ended=open_ended,
        detail=detail,
    )


def _failed(name: Target, detail: str) -> Reply:
    return Reply(Status.TEMPORARY, name, detail=detail)


def _authority_holds(message: dns.message.Message, rdtype: dns.rdatatype.RdataType) -> bool:
    return any(rrset.rdtype == rdtype for rrset in message.authority)


def _explanation(message: dns.message.Message) -> str:
    """The server's reason (RFC 8914), which for DNSSEC failures is the only one there is."""
    reasons = [
        f"{error.code.name} {error.text or ''}".strip() for error in message.extended_errors()
    ]
    return printable(f" ({'; '.join(reasons)})", limit=_MAX_EXPLANATION) if reasons else ""
