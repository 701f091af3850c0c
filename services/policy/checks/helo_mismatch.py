"""helo_mismatch: does the HELO name lead to the client's address?

RFC 5321 §4.1.1.1, §4.1.3 (address literals) and §4.1.4. Results: `pass`; `fail` when the name has
no such address, does not exist, or is neither a domain nor a literal; `temperror` when the name
cannot be looked up just now, which proves nothing. Only the records of the client's own address
family are asked for: the other family cannot hold its address.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from services.common.dns import RecordType, Status
from services.common.mail.address import HeloKind
from services.common.mail.reply import Reply
from services.policy.checks.check import (
    Check,
    Finding,
    Means,
    clear,
    dns_evidence,
    evidence,
    look_up,
    objects,
    unknown,
)
from services.policy.subject import Envelope, IPAddress


async def find(envelope: Envelope, means: Means) -> Finding:
    """Compare the client's address with what its HELO name stands for."""
    session = envelope.session
    helo, client = session.helo, session.address
    compared = (evidence("client.address", client), evidence("helo.name", helo.value))
    if helo.kind is HeloKind.INVALID:
        shown = f"“{helo.value}”" if helo.value else "empty"
        return objects(
            "fail", f"The HELO name is {shown}, neither a domain nor an address.", *compared
        )
    if helo.address is not None:
        literal = _unmapped(helo.address)
        if literal == client:
            return clear("pass", f"The HELO literal is the client's address {client}.", *compared)
        return objects("fail", f"The HELO literal {literal} is not {client}.", *compared)
    rdtype = RecordType.A if isinstance(client, IPv4Address) else RecordType.AAAA
    answer = await look_up(means.resolver, helo.value, rdtype)
    facts = (*compared, dns_evidence(answer))
    if client in answer.records:
        return clear("pass", f"{helo.value} has the client's address {client}.", *facts)
    match answer.status:
        case Status.TEMPORARY:
            return unknown(f"{helo.value} cannot be looked up just now.", *facts)
        case Status.OK:
            return objects("fail", f"{helo.value} has other addresses than {client}.", *facts)
        case Status.NXDOMAIN:
            return objects("fail", f"{helo.value} does not exist.", *facts)
        case Status.NO_DATA:
            return objects("fail", f"{helo.value} has no {rdtype} record.", *facts)


def _unmapped(address: IPAddress) -> IPAddress:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


CHECK = Check(
    name="helo_mismatch",
    find=find,
    refusal=Reply(550, "5.7.1", "The HELO name does not lead to your address"),
    deferral=Reply(451, "4.4.3", "Your HELO name cannot be looked up just now"),
)
