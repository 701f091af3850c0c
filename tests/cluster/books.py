"""The books of the run, from the lines that senders and the sink wrote in their pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.cluster.objects import DOMAIN
from tests.support.ledger import Ledger

RECIPIENT = f"sink@{DOMAIN}"


def books(sent: Iterable[Mapping[str, Any]], arrived: Iterable[Mapping[str, Any]]) -> Ledger:
    """A ledger of all that was sent and of all that arrived."""
    ledger = Ledger()
    for line in sent:
        if "sent" in line:
            ledger.hashes[line["sent"]] = line["sha256"]
            ledger.recipients[line["sent"]] = (RECIPIENT,)
        elif "accepted" in line:
            ledger.was_accepted(line["accepted"])
        elif "refused" in line:
            ledger.was_refused(line["refused"], int(line["code"]))
        elif "unknown" in line:
            ledger.is_unknown(line["unknown"])
    for line in arrived:
        if line["id"]:
            ledger.delivered[line["id"], RECIPIENT, line["sha256"]] += 1
    return ledger
