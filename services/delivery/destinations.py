"""What all replicas know of destinations: which ones an operator suspended, which next hops fail.

Kept in the bucket `destinations`: `suspended.<domain>` and `failing.<next hop>`, both in
hexadecimal since keys are subjects. Each replica reads the bucket every `POLL_S` seconds, so what
one of them learns all know a moment later. Losing an entry costs a few attempts, never a mail.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Gauge

from services.common.jetstream import Bucket, JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.reply import Reply, make_reply
from services.common.store import Stored

BUCKET: Final = "destinations"
POLL_S: Final = 2.0
MAX_ENTRIES: Final = 10_000
"""What is read of the bucket. More next hops than this do not fail at a time."""

PAGE: Final = 1000

FORGET_AFTER: Final = timedelta(hours=1)
"""Entries that are not in force any more are removed when they are as old as this."""

SUSPENDED = Gauge("gatepost_delivery_suspended_destinations", "Destinations that are suspended.")
FAILING = Gauge(
    "gatepost_delivery_failing_next_hops", "Next hops that are left alone because they fail."
)

_SUSPENDED: Final = "suspended"
_FAILING: Final = "failing"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Suspension:
    """An operator's word that a destination is left alone."""

    until: datetime | None
    """None: until it is resumed."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the bucket: a suspended destination, or with a reply a next hop that fails."""

    name: str
    until: datetime | None
    reply: Reply | None = None

    def is_in_force(self, now: datetime) -> bool:
        return self.until is None or self.until > now


class Destinations:
    """The shared knowledge, as last read."""

    def __init__(
        self,
        store: JetStream,
        now: Callable[[], datetime],
        *,
        on_failing: Callable[[str, float, Reply], None],
    ) -> None:
        """`on_failing` is told the next hop, for how many seconds to leave it alone, and why."""
        self._store = store
        self._now = now
        self._on_failing = on_failing
        self._bucket: Bucket | None = None
        self._suspended: dict[str, Suspension] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def suspension(self, destination: str) -> Suspension | None:
        """Whether and until when a destination is suspended."""
        found = self._suspended.get(destination)
        if found is None or (found.until is not None and found.until <= self._now()):
            return None
        return found

    async def suspensions(self) -> dict[str, Suspension]:
        """What is suspended now, by name. Raises `StoreError`."""
        await self.refresh()
        return dict(sorted(self._suspended.items()))

    async def suspend(self, destination: str, until: datetime | None) -> None:
        """Leave a destination alone. Raises `StoreError`."""
        value = {"until": until.isoformat() if until is not None else None}
        await self._put(_SUSPENDED, destination, value)
        self._suspended[destination] = Suspension(until)

    async def resume(self, destination: str) -> bool:
        """End a suspension; false if there was none. Raises `StoreError`."""
        known = await self._remove(_SUSPENDED, destination)
        self._suspended.pop(destination, None)
        return known

    async def forget_failing(self, next_hop: str) -> None:
        """Tell nobody any more that a next hop is to be left alone. Raises `StoreError`."""
        await self._remove(_FAILING, next_hop)

    def tell_failing(self, next_hop: str, seconds: float, reply: Reply) -> None:
        """Tell the other replicas that a next hop is to be left alone, without waiting for it."""
        value = {
            "until": (self._now() + timedelta(seconds=seconds)).isoformat(),
            "code": reply.code,
            "enhanced": reply.enhanced,
            "text": reply.text,
        }
        task = asyncio.create_task(self._tell(next_hop, value), name="tell-failing")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, next_hop: str, value: dict[str, Any]) -> None:
        try:
            await self._put(_FAILING, next_hop, value)
        except StoreError as error:
            event(_log, INFO, "others not told of a failing next hop", reason=str(error))

    async def follow(self) -> None:
        """Read the bucket again and again, for ever."""
        while True:
            try:
                await self.refresh()
            except StoreError as error:
                event(_log, INFO, "destinations not read", reason=str(error))
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Read the bucket now. Raises `StoreError`."""
        entries: list[_Entry] = []
        after = 0
        for _ in range(MAX_ENTRIES // PAGE):
            page = await self._store.page(
                f"KV_{BUCKET}", f"$KV.{BUCKET}.>", after_sequence=after, count=PAGE
            )
            for stored in page:
                entry = _entry(stored)
                if entry is not None and entry.is_in_force(self._now()):
                    entries.append(entry)
                elif self._now() - stored.time > FORGET_AFTER:
                    await self._store.purge(f"KV_{BUCKET}", stored.subject)
            if len(page) < PAGE:
                break
            after = page[-1].sequence
        self._put_in_place(entries)

    def _put_in_place(self, entries: list[_Entry]) -> None:
        suspended = [entry for entry in entries if entry.reply is None]
        failing = [entry for entry in entries if entry.reply is not None]
        self._suspended = {entry.name: Suspension(entry.until) for entry in suspended}
        for entry in failing:
            if entry.reply is not None and entry.until is not None:
                seconds = (entry.until - self._now()).total_seconds()
                self._on_failing(entry.name, seconds, entry.reply)
        SUSPENDED.set(len(suspended))
        FAILING.set(len(failing))

    async def _put(self, kind: str, name: str, value: dict[str, Any]) -> None:
        bucket = await self._opened()
        await bucket.put(_key(kind, name), json.dumps(value).encode())

    async def _remove(self, kind: str, name: str) -> bool:
        """Whether there was such an entry."""
        bucket = await self._opened()
        key = _key(kind, name)
        known = await bucket.get(key) is not None
        if known:
            await bucket.delete(key)
        return known

    async def _opened(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self._store.bucket(BUCKET)
        return self._bucket


def _key(kind: str, name: str) -> str:
    return f"{kind}.{name.encode().hex()}"


def _entry(stored: Stored) -> _Entry | None:
    """The entry of a message; None for the mark of a deleted key and for what is no entry."""
    kind, _, name = stored.subject.removeprefix(f"$KV.{BUCKET}.").partition(".")
    if "KV-Operation" in stored.headers or kind not in (_SUSPENDED, _FAILING):
        return None
    try:
        value = json.loads(stored.data)
        until = datetime.fromisoformat(value["until"]) if value["until"] else None
        reply = None
        if kind == _FAILING:
            reply = make_reply(int(value["code"]), value["enhanced"], value["text"])
        return _Entry(bytes.fromhex(name).decode(), until, reply)
    except (ValueError, KeyError, TypeError) as error:
        event(_log, WARNING, "not an entry", subject=stored.subject, reason=str(error))
        return None
