"""A key-value bucket."""

from __future__ import annotations

import contextlib
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from services.common.jetstream.translation import translated
from services.common.store import Missing

_REMOVED_HEADERS: Final = frozenset({"KV-Operation", "Nats-Marker-Reason"})
"""Of a message that says that its key is gone, by a client's wish or for its age."""

_KEYS_IDLE_S: Final = 30.0
"""A listing that was left half done is forgotten by the server after this."""


class Bucket:
    """A key-value bucket. Keys must be made of [A-Za-z0-9_=/-] and dots between tokens."""

    def __init__(self, name: str, bucket: KeyValue, context: JetStreamContext) -> None:
        self._prefix = f"$KV.{name}."
        self._stream = f"KV_{name}"
        self._bucket = bucket
        self._context = context

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision; None when there is no such key."""
        try:
            with translated():
                entry = await self._bucket.get(key)
        except Missing:
            return None
        return entry.value or b"", entry.revision or 0

    async def create(self, key: str, value: bytes) -> int:
        """Store a key that must not exist. Raises `Conflict` when it does."""
        with translated():
            return await self._bucket.create(key, value)

    async def put(self, key: str, value: bytes) -> int:
        """Store a key, whether it exists or not."""
        with translated():
            return await self._bucket.put(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Replace the value that had this revision. Raises `Conflict` when it has another."""
        with translated():
            return await self._bucket.update(key, value, last=revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key; with `revision` only if it still has that one."""
        with translated():
            await self._bucket.delete(key, last=revision)

    async def keys(self, *, timeout_s: float = 5.0) -> list[str]:
        """All keys, sorted.

        nats-py's own listing takes a bucket for empty when the server tells that it has sent all
        keys before they are here. So the keys to come are those that were not sent and those that
        were; the last one says that none is left.
        """
        with translated():
            subscription = await self._context.subscribe(
                f"{self._prefix}>",
                stream=self._stream,
                ordered_consumer=True,
                deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
                headers_only=True,
                inactive_threshold=_KEYS_IDLE_S,
            )
            try:
                info = await subscription.consumer_info()
                sent = info.delivered.consumer_seq if info.delivered else 0
                left = (info.num_pending or 0) + sent
                found = []
                while left:
                    message = await subscription.next_msg(timeout=timeout_s)
                    if not _is_removal(message):
                        found.append(message.subject.removeprefix(self._prefix))
                    left = message.metadata.num_pending
                return sorted(found)
            finally:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()


def _is_removal(message: Msg) -> bool:
    return not _REMOVED_HEADERS.isdisjoint(message.headers or {})
