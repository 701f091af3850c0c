"""The calls of `QueueService` about the suppression list."""

from __future__ import annotations

import logging
from typing import Any, Final

import grpc.aio

from gatepost.queue.v1 import queue_pb2 as pb
from services.common.log import INFO, event
from services.common.mail.address import AddressError, Mailbox, parse_mailbox
from services.common.mail.printable import one_line
from services.common.rpc.errors import invalid_argument, not_found
from services.delivery.call_errors import store_errors
from services.delivery.queue_entry import after_token, page_size
from services.delivery.suppressions import Suppression, Suppressions

MAX_REASON_OCTETS: Final = 300

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class SuppressionCalls:
    """Answers from the list and changes it."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions

    async def ListSuppressions(
        self, request: pb.ListSuppressionsRequest, context: Context
    ) -> pb.ListSuppressionsResponse:
        """A page of the list, or the entry of an address."""
        if request.address:
            mailbox = _mailbox(request.address)
            with store_errors():
                found = await self._suppressions.find([mailbox])
            return pb.ListSuppressionsResponse(suppressions=map(_message, found.values()))
        size, after = page_size(request.page_size), after_token(request.page_token)
        with store_errors():
            entries = await self._suppressions.page(after=after, count=size + 1)
        page = entries[:size]
        return pb.ListSuppressionsResponse(
            suppressions=[_message(entry) for _, entry in page],
            next_page_token=str(page[-1][0]) if len(entries) > size else "",
        )

    async def AddSuppression(
        self, request: pb.AddSuppressionRequest, context: Context
    ) -> pb.AddSuppressionResponse:
        """Put an address on the list."""
        mailbox = _mailbox(request.address)
        reason = one_line(request.reason, limit=MAX_REASON_OCTETS) or "by an operator"
        with store_errors():
            entry = await self._suppressions.add_by_hand(mailbox, reason)
        event(_log, INFO, "suppression added", recipient=mailbox, reason=reason)
        return pb.AddSuppressionResponse(suppression=_message(entry))

    async def RemoveSuppression(
        self, request: pb.RemoveSuppressionRequest, context: Context
    ) -> pb.RemoveSuppressionResponse:
        """Take an address from the list."""
        mailbox = _mailbox(request.address)
        with store_errors():
            known = await self._suppressions.remove(mailbox)
        if not known:
            raise not_found(f"{mailbox} is not on the list", reason="NOT_SUPPRESSED")
        event(_log, INFO, "suppression removed", recipient=mailbox)
        return pb.RemoveSuppressionResponse()


def _mailbox(text: str) -> Mailbox:
    try:
        mailbox = parse_mailbox(text, smtputf8=True)
    except AddressError as error:
        raise invalid_argument(f"address: {error.reason}", reason="INVALID_ADDRESS") from error
    if not mailbox.domain:
        raise invalid_argument("address has no domain", reason="INVALID_ADDRESS")
    return mailbox


def _message(entry: Suppression) -> pb.Suppression:
    message = pb.Suppression(address=str(entry.mailbox), reason=entry.reason, by_hand=entry.by_hand)
    message.since_time.FromDatetime(entry.since)
    return message
