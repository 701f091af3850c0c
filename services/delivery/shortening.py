"""What peers said, cut where a record would otherwise be longer than the server takes.

The ingress bounds what the recipients of a mail may add to its record; what is noted of each of
them after an attempt comes on top of that. A peer may say half a kilobyte of each recipient, and
there may be thousands of them where aliases lead to many.

Guarantees: all recipients, their states and the codes of their replies stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatepost.queue.v1.record_pb2 import DeliveryStatus, QueuedMessage
from services.common.mail.printable import ELLIPSIS, one_line

MAX_RECIPIENTS_OCTETS: Final = 900 * 1024
"""Of all recipients in a record with what was said of them. NATS takes messages of 1 MiB; the rest
is for the sender, why the record waits, and the headers of the message."""

MIN_TEXT_OCTETS: Final = 64
"""Where less would be left of each text, the names of the next hops make room too."""


def shorten_replies(record: QueuedMessage) -> None:
    """Cut the texts of the replies, all at the same length, if the record would be too long."""
    excess = _excess(record)
    tried = [each.last_status for each in record.recipients if each.HasField("last_status")]
    if excess <= 0 or not tried:
        return
    limit = _limit(tried, excess)
    if limit < MIN_TEXT_OCTETS:
        for status in tried:
            status.ClearField("next_hop")
        limit = max(_limit(tried, _excess(record)), len(ELLIPSIS))
    for status in tried:
        status.reply.text = one_line(status.reply.text, limit=limit)


def _excess(record: QueuedMessage) -> int:
    return sum(recipient.ByteSize() for recipient in record.recipients) - MAX_RECIPIENTS_OCTETS


def _limit(tried: Sequence[DeliveryStatus], excess: int) -> int:
    """How long each text may be; less than nothing if there is no room for any."""
    octets = sum(len(status.reply.text.encode()) for status in tried)
    return (octets - excess) // len(tried)
