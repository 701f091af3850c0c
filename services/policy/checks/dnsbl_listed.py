"""dnsbl_listed: is the client's address on a block list that is published in the DNS?

RFC 5782. Each list of `policy.dnsbl.lists` is asked for the reversed address under its zone; an
answer in 127.0.0.0/8 means listed, with the codes that the list is configured for. Codes in
127.255.255.0/24 are a list's way to say that it will not answer us, which proves nothing. Results:
`pass`, `listed`, `temperror`. The list's own reason (TXT) is looked up only for a listed address.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

from services.common.config.policy import DnsblList
from services.common.dns import Answer, RecordType, Status
from services.common.mail.reply import Reply
from services.policy.checks.check import (
    Check,
    Evidence,
    Finding,
    Means,
    clear,
    dns_evidence,
    evidence,
    look_up,
    look_up_all,
    objects,
    unknown,
)
from services.policy.subject import Envelope, IPAddress

_LISTED = ip_network("127.0.0.0/8")
_REFUSED = ip_network("127.255.255.0/24")


async def find(envelope: Envelope, means: Means) -> Finding:
    """Ask every list."""
    client = envelope.session.address
    lists = means.policy.dnsbl.lists
    names = [f"{reversed_name(client)}.{each.zone}" for each in lists]
    found = await look_up_all(means.resolver, names, RecordType.A)
    answers = [found[name] for name in names]
    facts = [evidence("client.address", client), *map(dns_evidence, answers)]
    listed = [
        (each, name)
        for each, name, answer in zip(lists, names, answers, strict=True)
        if _is_listed(each, answer)
    ]
    if listed:
        zones = ", ".join(each.zone for each, _ in listed)
        facts += await _reasons([name for _, name in listed], means)
        return objects("listed", f"{client} is on {zones}.", *facts)
    if any(_is_doubtful(answer) for answer in answers):
        return unknown("A block list cannot be asked just now.", *facts)
    return clear("pass", f"{client} is on no block list.", *facts)


def reversed_name(address: IPAddress) -> str:
    """RFC 5782 §2.1 and §2.4: the octets or nibbles from the last to the first."""
    pointer = address.reverse_pointer
    return pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _is_listed(each: DnsblList, answer: Answer) -> bool:
    codes = [code for code in answer.records if isinstance(code, IPv4Address) and code in _LISTED]
    telling = [code for code in codes if code not in _REFUSED]
    if not each.codes:
        return bool(telling)
    return any(code in network for code in telling for network in each.codes)


def _is_doubtful(answer: Answer) -> bool:
    refused = any(isinstance(c, IPv4Address) and c in _REFUSED for c in answer.records)
    return answer.status is Status.TEMPORARY or refused


async def _reasons(names: list[str], means: Means) -> list[Evidence]:
    answers = [await look_up(means.resolver, name, RecordType.TXT) for name in names]
    return [dns_evidence(answer) for answer in answers if answer.status is Status.OK]


def _applies(envelope: Envelope, means: Means) -> bool:
    return bool(means.policy.dnsbl.lists)


CHECK = Check(
    name="dnsbl_listed",
    find=find,
    refusal=Reply(550, "5.7.1", "Your address is on a block list"),
    deferral=Reply(451, "4.4.3", "A block list cannot be asked just now"),
    applies=_applies,
)
