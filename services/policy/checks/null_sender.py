"""The rest of invalid_sender, after DATA: is mail with a blank reverse-path a notification?

Only with `policy.null_sender: reports`. Results: `report` for a delivery notification (RFC 3464) or
a disposition notification (RFC 8098) from a HELO name that passes SPF; otherwise `null`, to which
invalid_sender objects as it does without that setting.
"""

from __future__ import annotations

import re

from services.common.config.policy import NullSender
from services.policy.checks import invalid_sender
from services.policy.checks.check import Check, Finding, Means, clear, evidence, objects
from services.policy.subject import Mail

_REPORT = re.compile(r"multipart/report\s*(?:;|$)", re.IGNORECASE)
_TYPE = re.compile(
    r';\s*report-type\s*=\s*"?(?:delivery-status|disposition-notification)"?\s*(?:;|$)',
    re.IGNORECASE,
)


async def find(mail: Mail, means: Means) -> Finding:
    """Look at the type of the content and at SPF."""
    fields = mail.header.fields_named("Content-Type")
    kind = fields[0].text if len(fields) == 1 else ""
    is_report = bool(_REPORT.match(kind) and _TYPE.search(kind))
    facts = (
        evidence("sender", "<>"),
        evidence("content.type", kind or "none"),
        evidence("spf.result", mail.spf_result or "none"),
    )
    if not is_report:
        return objects("null", "The reverse-path is blank; this is no notification.", *facts)
    if mail.spf_result != "pass":
        why = "The reverse-path is blank; SPF does not confirm the host that notifies."
        return objects("null", why, *facts)
    return clear("report", "A notification, from a host that SPF confirms.", *facts)


def _applies(mail: Mail, means: Means) -> bool:
    return mail.envelope.is_null and means.policy.null_sender is NullSender.REPORTS


CHECK = Check(
    name=invalid_sender.CHECK.name,
    find=find,
    refusal=invalid_sender.CHECK.refusal_for("null"),
    applies=_applies,
)
