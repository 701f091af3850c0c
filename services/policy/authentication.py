"""What has to be known of a mail before its checks: its signatures and its ARC chain, in time."""

from __future__ import annotations

import asyncio
import logging
import time

from prometheus_client import Histogram

from services.common.log import ERROR, event
from services.policy.arc.chain import verify_chain
from services.policy.arc.result import ArcResult
from services.policy.arc.sets import has_arc
from services.policy.checks.check import TEMPERROR, Means
from services.policy.dkim.signature import label_of
from services.policy.dkim.verification import (
    FIELD,
    MAX_SIGNATURES,
    SignatureResult,
    verify_signatures,
)
from services.policy.subject import Mail

SECONDS = Histogram(
    "gatepost_policy_signatures_seconds",
    "Time until the DKIM signatures of a mail were verified, look-ups included.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)

_log = logging.getLogger(__name__)


async def authenticate(mail: Mail, means: Means, *, seconds: float) -> None:
    """Fill `mail.signatures` and `mail.arc`. What is not known in time cannot be told just now."""
    reason = f"not verified within {seconds:.1f} s"
    verified: tuple[SignatureResult, ...] | None = None
    forwarded = has_arc(mail.header)
    if forwarded:
        mail.arc = ArcResult(TEMPERROR, reason)
    try:
        with SECONDS.time():
            async with asyncio.timeout(seconds):
                now = int(time.time())
                verified = await verify_signatures(mail, means.resolver, now=now, turns=means.turns)
                if forwarded:
                    mail.arc = await verify_chain(mail, means.resolver, turns=means.turns)
    except TimeoutError:
        pass
    except Exception:  # noqa: BLE001 - a fault of ours must not cost the verdict
        event(_log, ERROR, "signatures cannot be verified", exc_info=True)
    mail.signatures = _untold(mail, reason) if verified is None else verified


def _untold(mail: Mail, reason: str) -> tuple[SignatureResult, ...]:
    fields = mail.header.fields_named(FIELD)[:MAX_SIGNATURES]
    return tuple(SignatureResult(label_of(field), TEMPERROR, reason) for field in fields)
