"""The table of checks: what runs, in the order in which results are told and ties are decided."""

from __future__ import annotations

from services.policy.checks import (
    allow,
    arc,
    deny,
    dkim_invalid,
    dkim_missing,
    dmarc_fail,
    dnsbl_listed,
    from_mismatch,
    helo_mismatch,
    invalid_sender,
    null_sender,
    sender_unreachable,
    spf_mismatch,
)
from services.policy.checks.check import Check
from services.policy.subject import Envelope, Mail

ENVELOPE_CHECKS: tuple[Check[Envelope], ...] = (
    allow.CHECK,
    deny.CHECK,
    helo_mismatch.CHECK,
    invalid_sender.CHECK,
    spf_mismatch.CHECK,
    dnsbl_listed.CHECK,
    sender_unreachable.CHECK,
)
"""Known at RCPT: the session and the reverse-path."""

MESSAGE_CHECKS: tuple[Check[Mail], ...] = (
    null_sender.CHECK,
    arc.CHECK,
    dkim_invalid.CHECK,
    dkim_missing.CHECK,
    dmarc_fail.CHECK,
    from_mismatch.CHECK,
)
"""Known after DATA: the header and the body's digests. One with the name of an envelope check
replaces its result."""
