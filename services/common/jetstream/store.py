"""What Gatepost does with JetStream: publish, read, consume, and make streams."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from services.common.jetstream.bucket import Bucket
from services.common.jetstream.connection import Connection
from services.common.jetstream.consumer import Consumer
from services.common.jetstream.translation import REQUEST_SECONDS, REQUEST_TIMEOUT_S, translated
from services.common.store import (
    ConsumerState,
    Missing,
    Outgoing,
    Refused,
    StorageUse,
    Stored,
    StreamState,
    Unavailable,
)

MAX_BATCH: Final = 1000
"""The server's limit for an atomic batch."""

EXPECTED_ON_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"

MAX_LAST_OF: Final = 1000
"""The server gives 1,024 messages at most to one such request."""


class JetStream(Connection):
    """The calls, each acknowledged by the server or a `StoreError`."""

    # --- publishing -----------------------------------------------------------------------------

    async def publish(
        self,
        message: Outgoing,
        *,
        expected_last_sequence: int | None = None,
        on_subject: str = "",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> int:
        """Publish and wait for the acknowledgement. Returns the sequence number.

        With `expected_last_sequence` the last message on a subject, its own unless another is
        named, must have this number (0: there must be none), otherwise `Conflict`.
        """
        headers = dict(message.headers)
        if expected_last_sequence is not None:
            headers[api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expected_last_sequence)
        if on_subject:
            headers[EXPECTED_ON_SUBJECT] = on_subject
        context = self.context_now()
        with REQUEST_SECONDS.labels("publish").time(), translated():
            ack = await context.publish(
                message.subject, message.data, timeout=timeout_s, headers=headers or None
            )
        return ack.seq

    async def tell(self, message: Outgoing) -> None:
        """Publish without waiting for the acknowledgement: for what may be lost."""
        self.context_now()
        with translated():
            await self.client.publish(
                message.subject, message.data, headers=dict(message.headers) or None
            )

    async def publish_batch(
        self, messages: Sequence[Outgoing], *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        """Publish all or none, in one stream (ADR-50). One message is a plain publish."""
        if len(messages) == 1:
            await self.publish(messages[0], timeout_s=timeout_s)
            return
        if not 1 < len(messages) <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} messages, not {len(messages)}")
        self.context_now()
        batch = secrets.token_hex(12)
        with REQUEST_SECONDS.labels("batch").time(), translated():
            # The whole batch goes out without a pause: an abandoned one blocks a place for 10 s.
            for number, message in enumerate(messages[:-1], start=1):
                headers = {
                    **message.headers,
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(number),
                }
                await self.client.publish(message.subject, message.data, headers=headers)
            last = messages[-1]
            answer = await self.client.request(
                last.subject,
                last.data,
                timeout=timeout_s,
                headers={
                    **last.headers,
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(len(messages)),
                    "Nats-Batch-Commit": "1",
                },
            )
            reply = json.loads(answer.data or b"{}")
            if "error" in reply:
                raise nats.js.errors.APIError.from_error(reply["error"])
            if reply.get("count") != len(messages):
                raise Unavailable(f"the batch was acknowledged with {reply!r}")

    # --- reading --------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message on a subject, or None. From the leader or any replica (direct get)."""
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message with this sequence number, or None."""
        request = json.dumps({"seq": sequence}).encode()
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}", request)

    async def page(
        self, stream: str, subject_filter: str, *, after_sequence: int, count: int
    ) -> list[Stored]:
        """Up to `count` messages that match the filter and have a higher sequence, in order."""
        request = {"seq": after_sequence + 1, "next_by_subj": subject_filter, "batch": count}
        return await self._direct_get_many(stream, request, count)

    async def last_of(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        """The last message on each of these subjects that has any, in one request.

        At most `MAX_LAST_OF` subjects.
        """
        if not 0 < len(subjects) <= MAX_LAST_OF:
            raise ValueError(f"1 to {MAX_LAST_OF} subjects, not {len(subjects)}")
        request = {"multi_last": list(subjects), "batch": len(subjects)}
        found = await self._direct_get_many(stream, request, len(subjects))
        return {stored.subject: stored for stored in found}

    async def _direct_get_many(
        self, stream: str, request: Mapping[str, Any], count: int
    ) -> list[Stored]:
        self.context_now()
        inbox = self.client.new_inbox()
        found: list[Stored] = []
        with translated():
            subscription = await self.client.subscribe(inbox, max_msgs=count + 1)
            try:
                await self.client.publish(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox
                )
                while len(found) < count:
                    message = await subscription.next_msg(timeout=REQUEST_TIMEOUT_S)
                    status = (message.headers or {}).get("Status")
                    if status in {"204", "404"}:
                        break
                    if status:
                        raise Refused(f"{stream}: {message.headers}")
                    found.append(_stored(message))
            finally:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()
        return found

    async def _direct_get(self, api_subject: str, request: bytes) -> Stored | None:
        self.context_now()
        with translated():
            message = await self.client.request(api_subject, request, timeout=REQUEST_TIMEOUT_S)
        status = (message.headers or {}).get("Status")
        if status == "404":
            return None
        if status:
            raise Refused(f"{api_subject}: {message.headers}")
        return _stored(message)

    async def purge(self, stream: str, subject: str, *, up_to: int | None = None) -> int:
        """Remove every message on a subject, or those up to a sequence. Returns how many there
        were."""
        bound = {} if up_to is None else {"seq": up_to + 1}
        answer = await self.ask(f"$JS.API.STREAM.PURGE.{stream}", {"filter": subject, **bound})
        return int(answer.get("purged", 0))

    async def delete(self, stream: str, sequence: int) -> None:
        """Remove one message. One that is gone already is no error."""
        with contextlib.suppress(Missing):
            await self.ask(f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": sequence})

    async def subjects(self, stream: str, subject_filter: str, *, offset: int) -> list[str]:
        """The subjects that have messages, from `offset` on: 100,000 at most, so ask on.

        Takes about a second for so many, and the server for as long.
        """
        answer = await self.ask(
            f"$JS.API.STREAM.INFO.{stream}", {"subjects_filter": subject_filter, "offset": offset}
        )
        return list(answer["state"].get("subjects") or ())

    def consumer(self, stream: str, durable: str) -> Consumer:
        """A consumer that exists, or will by the time of the first pull."""
        return Consumer(self.client, stream, durable)

    @contextlib.asynccontextmanager
    async def follow(
        self,
        stream: str,
        subject_filter: str,
        *,
        since: datetime | None = None,
        after_sequence: int = 0,
    ) -> AsyncGenerator[AsyncGenerator[Stored, None], None]:
        """Messages as they come, in order, while the context lasts: those after a sequence, or else
        from a time on, or else all that are stored once it has been entered."""
        context = self.context_now()
        config = api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW)
        if since is not None:
            config = api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=since
            )
        if after_sequence:
            config = api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after_sequence + 1,
            )
        with translated():
            subscription = await context.subscribe(
                subject_filter, stream=stream, ordered_consumer=True, config=config
            )
        try:
            async with contextlib.aclosing(_arriving(subscription)) as arriving:
                yield arriving
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def bucket(self, name: str) -> Bucket:
        """Open a key-value bucket that exists."""
        context = self.context_now()
        with translated():
            return Bucket(name, await context.key_value(name), context)

    # --- topology -------------------------------------------------------------------------------

    async def create_stream(self, config: Mapping[str, Any]) -> None:
        """Create a stream, configured as the server's own JSON has it."""
        await self.ask(f"$JS.API.STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: Mapping[str, Any]) -> None:
        """Change a stream that exists to this configuration."""
        await self.ask(f"$JS.API.STREAM.UPDATE.{config['name']}", config)

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> None:
        """Create a durable consumer, configured as the server's own JSON has it."""
        await self._put_consumer(stream, config, action="create")

    async def update_consumer(self, stream: str, config: Mapping[str, Any]) -> None:
        """Change a durable consumer that exists to this configuration."""
        await self._put_consumer(stream, config, action="update")

    async def _put_consumer(self, stream: str, config: Mapping[str, Any], *, action: str) -> None:
        request = {"stream_name": stream, "config": config, "action": action}
        name = config["durable_name"]
        await self.ask(f"$JS.API.CONSUMER.CREATE.{stream}.{name}", request)

    async def stream_state(self, stream: str) -> StreamState | None:
        """What the server says of a stream; None when it does not exist."""
        try:
            answer = await self.ask(f"$JS.API.STREAM.INFO.{stream}", {})
        except Missing:
            return None
        return StreamState(answer["config"], answer["state"]["messages"], answer["state"]["bytes"])

    async def consumer_state(self, stream: str, durable: str) -> ConsumerState | None:
        """What the server says of a consumer; None when it does not exist."""
        try:
            answer = await self.ask(f"$JS.API.CONSUMER.INFO.{stream}.{durable}", {})
        except Missing:
            return None
        return ConsumerState(
            answer["config"],
            answer["num_pending"],
            answer["num_ack_pending"],
            answer["ack_floor"]["stream_seq"],
        )

    async def server_time(self, stream: str) -> datetime:
        """What time the server has that leads this stream."""
        answer = await self.ask(f"$JS.API.STREAM.INFO.{stream}", {})
        return datetime.fromisoformat(answer["ts"])

    async def storage_use(self) -> StorageUse:
        """How much file storage the account uses and may use, in octets."""
        answer = await self.ask("$JS.API.INFO", {})
        limit = int(answer.get("limits", {}).get("max_storage", -1))
        return StorageUse(int(answer.get("storage", 0)), limit if limit > 0 else None)


async def _arriving(
    subscription: JetStreamContext.PushSubscription,
) -> AsyncGenerator[Stored, None]:
    while True:
        with translated():
            message = await subscription.next_msg(timeout=None)
        yield Stored(
            message.subject,
            message.metadata.sequence.stream,
            message.data,
            message.metadata.timestamp,
            message.headers or {},
        )


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    return Stored(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        data=message.data,
        time=datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        headers=headers,
    )
