"""`gatepost.queue.v1.QueueService`: the queue, looked at by operators. Bodies are never shown."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError

from gatepost.queue.v1 import queue_pb2, queue_pb2_grpc
from gatepost.queue.v1.event_pb2 import Event
from services.common.jetstream import JetStream, StoreError
from services.common.log import WARNING, event
from services.common.mail.domain import AddressError, parse_domain
from services.common.mail.ids import is_message_id
from services.common.queue.subjects import (
    EVENTS_STREAM,
    QUEUE_STREAM,
    State,
    event_filter,
    record_filter,
)
from services.common.rpc.auth import CHANGE, VIEW, methods
from services.common.rpc.errors import invalid_argument, not_found, unavailable
from services.common.store import Stored
from services.delivery.queue_entry import BY_NUMBER, entry_of

SERVICE: Final = queue_pb2.DESCRIPTOR.services_by_name["QueueService"]
ACCESS: Final = methods(
    SERVICE.full_name,
    GetMessage=VIEW,
    ListMessages=VIEW,
    RetryMessage=CHANGE,
    HoldMessage=CHANGE,
    ReleaseMessage=CHANGE,
    CancelMessage=CHANGE,
    SuspendDestination=CHANGE,
    ResumeDestination=CHANGE,
    WatchEvents=VIEW,
    ListDeadRecords=VIEW,
    RequeueDeadRecord=CHANGE,
)

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
FETCH: Final = 100
"""Records read at once: ready ones hold up to 256 KiB of content each."""

MAX_RECORDS_OF_A_MAIL: Final = 1000
MAX_EVENTS_OF_A_MAIL: Final = 1000

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class QueueService(queue_pb2_grpc.QueueServiceServicer):
    """Answers requests from what is in the streams."""

    def __init__(self, store: JetStream) -> None:
        self._store = store

    async def ListMessages(
        self, request: queue_pb2.ListMessagesRequest, context: Context
    ) -> queue_pb2.ListMessagesResponse:
        """A page of records in the order of the stream."""
        size = _page_size(request.page_size)
        found = await self._records(
            record_filter(state=_state(request.state), destination=_domain(request.destination)),
            after=_after(request.page_token),
            count=size + 1,
        )
        page = found[:size]
        return queue_pb2.ListMessagesResponse(
            entries=[entry_of(stored) for stored in page],
            next_page_token=str(page[-1].sequence) if len(found) > size else "",
        )

    async def GetMessage(
        self, request: queue_pb2.GetMessageRequest, context: Context
    ) -> queue_pb2.GetMessageResponse:
        """All that is known of a mail."""
        message_id = _message_id(request.message_id)
        records = await self._records(
            record_filter(message_id=message_id), after=0, count=MAX_RECORDS_OF_A_MAIL
        )
        events = await self._events(message_id)
        if not records and not events:
            raise not_found(f"there is no trace of {message_id}", reason="MESSAGE_UNKNOWN")
        return queue_pb2.GetMessageResponse(
            entries=[entry_of(stored) for stored in records], events=events
        )

    async def RetryMessage(
        self, request: queue_pb2.RetryMessageRequest, context: Context
    ) -> queue_pb2.RetryMessageResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def HoldMessage(
        self, request: queue_pb2.HoldMessageRequest, context: Context
    ) -> queue_pb2.HoldMessageResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def ReleaseMessage(
        self, request: queue_pb2.ReleaseMessageRequest, context: Context
    ) -> queue_pb2.ReleaseMessageResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def CancelMessage(
        self, request: queue_pb2.CancelMessageRequest, context: Context
    ) -> queue_pb2.CancelMessageResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def SuspendDestination(
        self, request: queue_pb2.SuspendDestinationRequest, context: Context
    ) -> queue_pb2.SuspendDestinationResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def ResumeDestination(
        self, request: queue_pb2.ResumeDestinationRequest, context: Context
    ) -> queue_pb2.ResumeDestinationResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def ListDeadRecords(
        self, request: queue_pb2.ListDeadRecordsRequest, context: Context
    ) -> queue_pb2.ListDeadRecordsResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def RequeueDeadRecord(
        self, request: queue_pb2.RequeueDeadRecordRequest, context: Context
    ) -> queue_pb2.RequeueDeadRecordResponse:
        """Not offered by this release."""
        raise NotImplementedError

    async def WatchEvents(
        self, request: queue_pb2.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[queue_pb2.WatchEventsResponse, None]:
        """Events as they happen."""
        message_id = _message_id(request.message_id) if request.message_id else ""
        since = (
            request.since_time.ToDatetime(tzinfo=UTC) if request.HasField("since_time") else None
        )
        try:
            async with aclosing(
                self._store.follow(EVENTS_STREAM, event_filter(message_id), since=since)
            ) as coming:
                async for stored in coming:
                    happened = read_event(stored)
                    if happened is not None:
                        yield queue_pb2.WatchEventsResponse(event=happened)
        except StoreError as error:
            text = f"the events cannot be read: {error}"
            raise unavailable(text, reason="EVENTS_AWAY") from error

    async def _records(self, subjects: str, *, after: int, count: int) -> list[Stored]:
        """Records in their order. Raises `RpcFailure`."""
        found: list[Stored] = []
        try:
            while len(found) < count:
                wanted = min(FETCH, count - len(found))
                page = await self._store.page(
                    QUEUE_STREAM, subjects, after_sequence=after, count=wanted
                )
                found += page
                if len(page) < wanted:
                    break
                after = page[-1].sequence
        except StoreError as error:
            raise unavailable(f"the queue cannot be read: {error}", reason="QUEUE_AWAY") from error
        return found

    async def _events(self, message_id: str) -> list[Event]:
        try:
            stored = await self._store.page(
                EVENTS_STREAM,
                event_filter(message_id),
                after_sequence=0,
                count=MAX_EVENTS_OF_A_MAIL,
            )
        except StoreError as error:
            text = f"the events cannot be read: {error}"
            raise unavailable(text, reason="EVENTS_AWAY") from error
        return [each for each in map(read_event, stored) if each is not None]


def read_event(stored: Stored) -> Event | None:
    """The event that was stored; None, and a line in the log, for what is none."""
    try:
        return Event.FromString(stored.data)
    except DecodeError as error:
        event(_log, WARNING, "not an event", subject=stored.subject, reason=str(error))
        return None


def _page_size(asked: int) -> int:
    if asked > MAX_PAGE_SIZE:
        raise invalid_argument(f"page_size is at most {MAX_PAGE_SIZE}", reason="INVALID_PAGE_SIZE")
    return asked or DEFAULT_PAGE_SIZE


def _after(token: str) -> int:
    if token and not (token.isdecimal() and token.isascii() and len(token) < 20):
        raise invalid_argument("page_token is not one of ours", reason="INVALID_PAGE_TOKEN")
    return int(token or 0)


def _state(number: queue_pb2.QueueState.ValueType) -> State | None:
    if number == queue_pb2.QUEUE_STATE_UNSPECIFIED:
        return None
    state = BY_NUMBER.get(number)
    if state is None:
        raise invalid_argument(f"there is no state {number}", reason="INVALID_STATE")
    return state


def _domain(text: str) -> str:
    if not text:
        return ""
    try:
        return text if text.startswith("[") else parse_domain(text)
    except AddressError as error:
        raise invalid_argument(f"destination: {error.reason}", reason="INVALID_DOMAIN") from error


def _message_id(text: str) -> str:
    if not is_message_id(text):
        raise invalid_argument("message_id is not an id", reason="INVALID_MESSAGE_ID")
    return text
