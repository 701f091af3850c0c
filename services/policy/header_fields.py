"""The fields that a verdict puts in front of a mail, the first one topmost.

RFC 8601 (Authentication-Results), RFC 7208 §9.1 (Received-SPF). X-Spam-Flag, X-Spam-Status and
X-Gatepost-Verdict are what mail programs and mailboxes sort by. Values from outside are reduced to
what cannot end a field, a comment or a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from services.common.mail.message import folded
from services.policy.action import Action
from services.policy.arc.result import ArcResult
from services.policy.checks.spf_mismatch import identity
from services.policy.dkim.verification import SignatureResult
from services.policy.subject import Envelope, Mail
from services.policy.verdict import Result, Verdict

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~@]+")
_NOT_QUOTABLE = re.compile(r"[^ !#-\[\]-~]")

Field = tuple[str, bytes]
"""A name and the folded value, without the final line end."""


def header_fields(verdict: Verdict, mail: Mail, *, hostname: str, message_id: str) -> list[Field]:
    """The fields for a mail that is taken.

    None for one that a client submitted: it was not judged, it is on its way to others, and whose
    login sent it is nobody's business there.
    """
    envelope = mail.envelope
    if envelope.session.authenticated_account:
        return []
    results = {result.check: result for result in verdict.results}
    fields = [_authentication_results(mail, results, hostname)]
    spf = results.get("spf_mismatch")
    if spf is not None:
        fields.append(_received_spf(envelope, spf, hostname))
    if verdict.action is Action.SPAM:
        fields.append(_field("X-Spam-Flag", "YES"))
    fields.append(_spam_status(verdict))
    fields.append(_gatepost_verdict(verdict, message_id))
    return fields


def _authentication_results(mail: Mail, results: Mapping[str, Result], hostname: str) -> Field:
    entries = list(_entries(mail, results)) or ["none"]
    parts = [f"{hostname};", *(f"{entry};" for entry in entries[:-1]), entries[-1]]
    return _field("Authentication-Results", *parts)


def _entries(mail: Mail, results: Mapping[str, Result]) -> Iterator[str]:
    """One entry for each method, and for each signature."""
    spf = results.get("spf_mismatch")
    if spf is not None:
        kind, _, domain = identity(mail.envelope)
        yield f"spf={spf.result} smtp.{kind}={_value(domain)}"
    for signature in mail.signatures:
        yield _dkim_entry(signature)
    if "dkim_missing" in results and not mail.signatures:
        yield "dkim=none"
    if mail.arc.result != "none":
        yield _arc_entry(mail.arc)
    dmarc = results.get("dmarc_fail")
    if dmarc is not None:
        yield _dmarc_entry(mail, dmarc)


def _dkim_entry(signature: SignatureResult) -> str:
    words = [f"dkim={signature.result}"]
    if signature.bits:
        words.append(f"({signature.bits}-bit key)")
    if signature.reason:
        words.append(f"reason={_quoted(signature.reason)}")
    label = signature.label
    # RFC 8601 §2.7.1, RFC 6008
    for name, value in (("d", label.domain), ("s", label.selector), ("b", label.signature)):
        if value:
            words.append(f"header.{name}={_value(value)}")
    return " ".join(words)


def _arc_entry(arc: ArcResult) -> str:
    words = [f"arc={arc.result}"]
    if arc.sealers:
        words.append(f"(sealed by {_comment(arc.sealers[-1])})")
    if arc.reason:
        words.append(f"reason={_quoted(arc.reason)}")
    if arc.result == "pass":
        words.append(f"header.oldest-pass={arc.oldest_pass}")  # RFC 8617 §10.2
    return " ".join(words)


def _dmarc_entry(mail: Mail, dmarc: Result) -> str:
    words = [f"dmarc={dmarc.result}"]
    asked = dict(dmarc.evidence).get("dmarc.policy")
    if asked:
        words.append(f"(p={asked})")
    words += [f"header.from={_value(each.domain)}" for each in mail.authors.addresses[:1]]
    return " ".join(words)


def _received_spf(envelope: Envelope, spf: Result, hostname: str) -> Field:
    kind, _, _ = identity(envelope)
    pairs = [
        f"client-ip={envelope.session.address};",
        *([f"envelope-from={_quoted(envelope.sender_text)};"] if kind == "mailfrom" else []),
        f"helo={_value(envelope.session.helo_text)};",
        f"receiver={hostname};",
        f"identity={kind}",
    ]
    mechanism = dict(spf.evidence).get("spf.mechanism")
    if mechanism:
        pairs[-1] += ";"
        pairs.append(f"mechanism={_value(mechanism)}")
    comment = f"({hostname}: {_comment(spf.explanation)})"
    return _field("Received-SPF", spf.result, comment, *pairs)


def _spam_status(verdict: Verdict) -> Field:
    flag = "Yes" if verdict.action is Action.SPAM else "No"
    tests = ",".join(_objecting(verdict.results)) or "none"
    return _field("X-Spam-Status", f"{flag},", f"tests={tests}")


def _gatepost_verdict(verdict: Verdict, message_id: str) -> Field:
    parts = [f"{verdict.action.name.lower()};"]
    if message_id:
        parts.append(f"id={message_id};")
    if verdict.decisive:
        parts.append(f"decisive={verdict.decisive};")
    told = ",".join(f"{r.check}={r.result}" for r in verdict.results)
    parts.append(f"checks={told or 'none'}")
    return _field("X-Gatepost-Verdict", *parts)


def _objecting(results: Sequence[Result]) -> list[str]:
    return [result.check for result in results if result.objects]


def _field(name: str, *parts: str) -> Field:
    raw = folded(name, *parts)
    return name, raw[len(name) + 2 : -2]


def _value(text: str) -> str:
    """RFC 2045 value: a token, otherwise a quoted string."""
    return text if _TOKEN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    clean = _NOT_QUOTABLE.sub("?", text.replace("\\", "?").replace('"', "'"))
    return f'"{clean[:256]}"'


def _comment(text: str) -> str:
    return re.sub(r"[()\\]", "", text)
