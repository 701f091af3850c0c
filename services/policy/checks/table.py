"""The table of checks: what runs, in the order in which results are told and ties are decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.policy.checks import (
    dkim_invalid,
    dkim_missing,
    dmarc_fail,
    from_mismatch,
    helo_mismatch,
    invalid_sender,
    sender_unreachable,
    spf_mismatch,
)
from services.policy.checks.check import Check
from services.policy.subject import Envelope, Mail

ENVELOPE_CHECKS: tuple[Check[Envelope], ...] = (
    helo_mismatch.CHECK,
    invalid_sender.CHECK,
    spf_mismatch.CHECK,
    sender_unreachable.CHECK,
)
"""Known at RCPT: the session and the reverse-path."""

MESSAGE_CHECKS: tuple[Check[Mail], ...] = (
    dkim_invalid.CHECK,
    dkim_missing.CHECK,
    dmarc_fail.CHECK,
    from_mismatch.CHECK,
)
"""Known after DATA: the header and the body's digests."""

CHECKS: Mapping[str, Check[Any]] = {
    **{check.name: check for check in ENVELOPE_CHECKS},
    **{check.name: check for check in MESSAGE_CHECKS},
}
