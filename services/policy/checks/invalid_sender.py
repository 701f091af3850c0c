"""invalid_sender: is the reverse-path an address that could get an answer?

RFC 5321 §4.1.2 (syntax), RFC 2308 (a name that does not exist), RFC 7505 (null MX). Results:
`pass`; `null` for the blank reverse-path (with `policy.null_sender: reports` the judgement waits
for the content, see `null_sender`); `syntax`; `nxdomain` for a domain that does not exist;
`nullmx` for one that says that it takes no mail; `temperror`. A domain that exists and has no MX
passes: whether somebody there would take a reply is another check's question.
"""

from __future__ import annotations

from services.common.config.policy import NullSender
from services.common.dns import Answer, MxRecord, RecordType, Status
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
from services.policy.subject import Envelope


async def find(envelope: Envelope, means: Means) -> Finding:
    """Judge the reverse-path by its syntax and its domain's records."""
    path = evidence("sender", f"<{envelope.sender_text}>")
    sender = envelope.sender
    if envelope.is_null and means.policy.null_sender is NullSender.REPORTS:
        return clear("null", "The reverse-path is blank; the content will tell.", path)
    if envelope.is_null:
        return objects("null", "The reverse-path is blank.", path)
    if sender is None:
        why = envelope.sender_problem
        return objects("syntax", f"The reverse-path is not an address: {why}.", path)
    if sender.is_literal:
        return clear("pass", "The reverse-path's domain is an address literal.", path)
    domain = sender.domain
    answer = await look_up(means.resolver, domain, RecordType.MX)
    facts = (path, dns_evidence(answer))
    match answer.status:
        case Status.OK:
            if _is_null_mx(answer):
                return objects("nullmx", f"{domain} says that it takes no mail (null MX).", *facts)
            return clear("pass", f"{domain} has a mail exchange.", *facts)
        case Status.NXDOMAIN:
            return objects("nxdomain", f"{domain} does not exist.", *facts)
        case Status.TEMPORARY:
            return unknown(f"{domain} cannot be looked up just now.", *facts)
        case Status.NO_DATA:
            return clear("pass", f"{domain} exists; it has no MX record.", *facts)


def _is_null_mx(answer: Answer) -> bool:
    """RFC 7505 §3: the null MX counts only where it stands alone."""
    record = answer.records[0] if len(answer.records) == 1 else None
    return isinstance(record, MxRecord) and record.is_null


CHECK = Check(
    name="invalid_sender",
    find=find,
    refusal=Reply(550, "5.1.8", "The sender's domain does not exist or takes no mail"),
    refusals={
        "null": Reply(550, "5.7.1", "Mail with a blank sender is not taken"),
        "syntax": Reply(550, "5.1.7", "The sender is not a valid address"),
        # RFC 7505 §4.2
        "nullmx": Reply(550, "5.7.27", "The sender's domain takes no mail (null MX)"),
    },
    deferral=Reply(451, "4.1.8", "The sender's domain cannot be looked up just now"),
)
