"""`gatepost.queue.v1.QueueService`: the queue, looked at and handled by operators.

Bodies are never shown. A record that is being tried cannot be changed: FAILED_PRECONDITION. What is
begun with a record is brought to its end although the caller goes away; no further one is begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from gatepost.queue.v1 import queue_pb2, queue_pb2_grpc
from gatepost.queue.v1.event_pb2 import Event
from services.common.jetstream import JetStream
from services.common.log import INFO, event
from services.common.mail.domain import (
    AddressError,
    literal_text,
    parse_domain,
    parse_literal,
)
from services.common.mail.ids import is_message_id
from services.common.queue.subjects import (
    DEAD_STREAM,
    EVENTS_STREAM,
    QUEUE_STREAM,
    event_filter,
    record_filter,
)
from services.common.rpc.auth import CHANGE, VIEW, methods
from services.common.rpc.errors import (
    RpcFailure,
    failed_precondition,
    invalid_argument,
    not_found,
)
from services.common.store import Stored
from services.delivery.call_errors import store_errors
from services.delivery.destinations import Destinations
from services.delivery.events import Events
from services.delivery.operations import Operation, Operations
from services.delivery.queue_entry import (
    after_token,
    dead_record,
    entry_of,
    page_size,
    queue_state,
    read_event,
    suspension_entry,
)
from services.delivery.resumption import Resumption
from services.delivery.suppression_service import SuppressionCalls
from services.delivery.suppressions import Suppressions
from services.delivery.under_way import UnderWay

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
    ListSuspensions=VIEW,
    WatchEvents=VIEW,
    ListDeadRecords=VIEW,
    RequeueDeadRecord=CHANGE,
    ListSuppressions=VIEW,
    AddSuppression=CHANGE,
    RemoveSuppression=CHANGE,
)

FETCH: Final = 100
"""Records read at once: ready ones hold up to 256 KiB of content each."""

MAX_RECORDS_OF_A_MAIL: Final = 1000
MAX_EVENTS_OF_A_MAIL: Final = 1000
_MAX_SEQUENCE: Final = 2**63

Context = grpc.aio.ServicerContext[Any, Any]
_OneMail: TypeAlias = (
    queue_pb2.RetryMessageRequest
    | queue_pb2.HoldMessageRequest
    | queue_pb2.ReleaseMessageRequest
    | queue_pb2.CancelMessageRequest
)

_log = logging.getLogger(__name__)


class QueueService(SuppressionCalls, queue_pb2_grpc.QueueServiceServicer):
    """Answers requests from what is in the streams."""

    def __init__(
        self,
        store: JetStream,
        operations: Operations,
        destinations: Destinations,
        events: Events,
        suppressions: Suppressions,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(suppressions)
        self._store = store
        self._operations = operations
        self._destinations = destinations
        self._resumption = Resumption(store, operations, destinations)
        self._events = events
        self._now = now
        self._under_way = UnderWay()

    async def ListMessages(
        self, request: queue_pb2.ListMessagesRequest, context: Context
    ) -> queue_pb2.ListMessagesResponse:
        """A page of records in the order of the stream."""
        size = page_size(request.page_size)
        found = await self._records(
            record_filter(
                state=queue_state(request.state), destination=_domain(request.destination)
            ),
            after=after_token(request.page_token),
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
        events = await self._happened(message_id)
        if not records and not events:
            raise not_found(f"there is no trace of {message_id}", reason="MESSAGE_UNKNOWN")
        return queue_pb2.GetMessageResponse(
            entries=[entry_of(stored) for stored in records], events=events
        )

    async def RetryMessage(
        self, request: queue_pb2.RetryMessageRequest, context: Context
    ) -> queue_pb2.RetryMessageResponse:
        """Make what waits due now."""
        done = await self._change(request, "RetryMessage", self._operations.retry)
        return queue_pb2.RetryMessageResponse(entries=done)

    async def HoldMessage(
        self, request: queue_pb2.HoldMessageRequest, context: Context
    ) -> queue_pb2.HoldMessageResponse:
        """Keep what waits from being tried."""
        done = await self._change(request, "HoldMessage", self._operations.hold)
        return queue_pb2.HoldMessageResponse(entries=done)

    async def ReleaseMessage(
        self, request: queue_pb2.ReleaseMessageRequest, context: Context
    ) -> queue_pb2.ReleaseMessageResponse:
        """Let what is held go on."""
        done = await self._change(request, "ReleaseMessage", self._operations.release)
        return queue_pb2.ReleaseMessageResponse(entries=done)

    async def CancelMessage(
        self, request: queue_pb2.CancelMessageRequest, context: Context
    ) -> queue_pb2.CancelMessageResponse:
        """Remove what waits or is held."""
        cancel = partial(self._operations.cancel, notify=request.notify_sender)
        done = await self._change(request, "CancelMessage", cancel)
        return queue_pb2.CancelMessageResponse(entries=done)

    async def SuspendDestination(
        self, request: queue_pb2.SuspendDestinationRequest, context: Context
    ) -> queue_pb2.SuspendDestinationResponse:
        """Stop attempts at a destination."""
        destination = _required_domain(request.destination)
        until = _time(request.until_time) if request.HasField("until_time") else None
        if until is not None and until <= self._now():
            raise invalid_argument("until_time is in the past", reason="INVALID_TIME")
        with store_errors():
            await self._destinations.suspend(destination, until)
        event(_log, INFO, "destination suspended", destination=destination, until=until)
        return queue_pb2.SuspendDestinationResponse()

    async def ResumeDestination(
        self, request: queue_pb2.ResumeDestinationRequest, context: Context
    ) -> queue_pb2.ResumeDestinationResponse:
        """End a suspension, and have what waits because of it tried."""
        destination = _required_domain(request.destination)
        with store_errors():
            known = await self._destinations.resume(destination)
        if not known:
            raise not_found(f"{destination} is not suspended", reason="NOT_SUSPENDED")
        event(_log, INFO, "destination resumed", destination=destination)
        self._resumption.begin(destination)
        return queue_pb2.ResumeDestinationResponse()

    async def ListSuspensions(
        self, request: queue_pb2.ListSuspensionsRequest, context: Context
    ) -> queue_pb2.ListSuspensionsResponse:
        """A page of what is suspended."""
        size = page_size(request.page_size)
        with store_errors():
            known = await self._destinations.suspensions()
        found = [
            suspension_entry(name, until.until)
            for name, until in known.items()
            if name > request.page_token
        ]
        return queue_pb2.ListSuspensionsResponse(
            suspensions=found[:size],
            next_page_token=found[size - 1].destination if len(found) > size else "",
        )

    async def ListDeadRecords(
        self, request: queue_pb2.ListDeadRecordsRequest, context: Context
    ) -> queue_pb2.ListDeadRecordsResponse:
        """A page of the records that were set aside."""
        size = page_size(request.page_size)
        after = after_token(request.page_token)
        found = await self._stored(DEAD_STREAM, "dead.>", after=after, count=size + 1)
        page = found[:size]
        return queue_pb2.ListDeadRecordsResponse(
            records=[dead_record(stored) for stored in page],
            next_page_token=str(page[-1].sequence) if len(found) > size else "",
        )

    async def RequeueDeadRecord(
        self, request: queue_pb2.RequeueDeadRecordRequest, context: Context
    ) -> queue_pb2.RequeueDeadRecordResponse:
        """Put a record that was set aside back."""
        if not request.sequence:
            raise invalid_argument("sequence is missing", reason="INVALID_SEQUENCE")
        with store_errors():
            key = await self._operations.requeue(request.sequence)
        await self._tell(key.message_id, "RequeueDeadRecord", key.destination)
        return queue_pb2.RequeueDeadRecordResponse()

    async def WatchEvents(
        self, request: queue_pb2.WatchEventsRequest, context: Context
    ) -> AsyncGenerator[queue_pb2.WatchEventsResponse, None]:
        """Events as they happen. The metadata is sent once none can be missed any more."""
        message_id = _message_id(request.message_id) if request.message_id else ""
        since = _time(request.since_time) if request.HasField("since_time") else None
        after = _sequence(request.after_sequence)
        following = self._store.follow(
            EVENTS_STREAM, event_filter(message_id), since=since, after_sequence=after
        )
        with store_errors():
            async with following as coming:
                await context.send_initial_metadata(())
                async for stored in coming:
                    happened = read_event(stored)
                    if happened is not None:
                        yield queue_pb2.WatchEventsResponse(
                            event=happened, sequence=stored.sequence
                        )

    async def _change(
        self, request: _OneMail, method: str, operation: Operation
    ) -> list[queue_pb2.QueueEntry]:
        """Change the records of a mail, and answer with those that the change was for."""
        message_id, destination = _message_id(request.message_id), _domain(request.destination)
        subjects = record_filter(destination=destination, message_id=message_id)
        found = await self._records(subjects, after=0, count=MAX_RECORDS_OF_A_MAIL)
        if not found:
            raise not_found(f"no record of {message_id} is in the queue", reason="MESSAGE_UNKNOWN")

        async def work(gone: asyncio.Event) -> list[queue_pb2.QueueEntry]:
            changed = await _changed(found, operation, gone)
            if changed:
                await self._tell(message_id, method, destination)
            return changed

        return await self._under_way.see_through(work)

    async def finish(self) -> None:
        """Wait for the changes whose callers have gone."""
        await self._under_way.finish()

    async def _tell(self, message_id: str, method: str, destination: str) -> None:
        fields = {"message": message_id, "destination": destination}
        event(_log, INFO, "changed by an operator", method=method, **fields)
        await self._events.operator(message_id, method, destination, self._now())

    async def _records(self, subjects: str, *, after: int, count: int) -> list[Stored]:
        return await self._stored(QUEUE_STREAM, subjects, after=after, count=count)

    async def _stored(self, stream: str, subjects: str, *, after: int, count: int) -> list[Stored]:
        """What is stored, in its order. Raises `RpcFailure`."""
        found: list[Stored] = []
        with store_errors():
            while len(found) < count:
                wanted = min(FETCH, count - len(found))
                page = await self._store.page(stream, subjects, after_sequence=after, count=wanted)
                found += page
                if len(page) < wanted:
                    break
                after = page[-1].sequence
        return found

    async def _happened(self, message_id: str) -> list[Event]:
        subjects = event_filter(message_id)
        stored = await self._stored(EVENTS_STREAM, subjects, after=0, count=MAX_EVENTS_OF_A_MAIL)
        return [each for each in map(read_event, stored) if each is not None]


async def _changed(
    found: list[Stored], operation: Operation, gone: asyncio.Event
) -> list[queue_pb2.QueueEntry]:
    """Change records, and none more once the caller is gone; those that the change was for."""
    changed, refusals = [], []
    for stored in found:
        if gone.is_set():
            break
        try:
            with store_errors():
                standing = await operation(stored)
        except RpcFailure as failure:
            if failure.code is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            refusals.append(f"{entry_of(stored).destination}: {failure.text}")
        else:
            if standing is not None:
                changed.append(entry_of(standing))
    if refusals and not changed:
        raise failed_precondition("; ".join(refusals), reason="NOT_POSSIBLE_NOW")
    return changed


def _time(stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise invalid_argument("a time is out of range", reason="INVALID_TIME") from error


def _sequence(number: int) -> int:
    if number >= _MAX_SEQUENCE:
        raise invalid_argument("after_sequence is out of range", reason="INVALID_SEQUENCE")
    return number


def _message_id(text: str) -> str:
    if not is_message_id(text):
        raise invalid_argument("message_id is not an id", reason="INVALID_MESSAGE_ID")
    return text


def _domain(text: str) -> str:
    if not text:
        return ""
    try:
        return literal_text(parse_literal(text)) if text.startswith("[") else parse_domain(text)
    except AddressError as error:
        raise invalid_argument(f"destination: {error.reason}", reason="INVALID_DOMAIN") from error


def _required_domain(text: str) -> str:
    if not text:
        raise invalid_argument("destination is missing", reason="INVALID_DOMAIN")
    return _domain(text)
