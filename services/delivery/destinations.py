"""What all replicas know of destinations: which ones an operator suspended, which next hops fail.

Kept in the bucket `destinations`: `suspended.<domain>` and `failing.<next hop>`, both in
hexadecimal since keys are subjects. Each replica reads the bucket every `POLL_S` seconds, so what
one of them learns all know a moment later. What an operator does counts at once where it is done:
what is read from a server that lags, or was read before, does not undo it. Losing an entry costs a
few attempts, never a mail.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Gauge

from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.reply import Reply, make_reply
from services.common.store import Outgoing, Stored

BUCKET: Final = "destinations"
POLL_S: Final = 2.0
NOTICED_S: Final = 2 * POLL_S
"""After this every replica has read what was written."""

MAX_ENTRIES: Final = 10_000
"""What is read of the bucket. More next hops than this do not fail at a time."""

PAGE: Final = 1000

FORGET_AFTER: Final = timedelta(hours=1)
"""Entries that are not in force any more are removed when they are as old as this."""

SUSPENDED = Gauge("gatepost_delivery_suspended_destinations", "Destinations that are suspended.")
FAILING = Gauge(
    "gatepost_delivery_failing_next_hops", "Next hops that are left alone because they fail."
)

_STREAM: Final = f"KV_{BUCKET}"
_PREFIX: Final = f"$KV.{BUCKET}."
_OPERATION: Final = "KV-Operation"

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


@dataclass(frozen=True, slots=True)
class _Change:
    """What was made of an entry here, and the sequence that it has in the bucket."""

    sequence: int
    entry: _Entry | None


class Destinations:
    """The shared knowledge, as last read."""

    def __init__(
        self,
        store: JetStream,
        now: Callable[[], datetime],
        *,
        on_failing: Callable[[str, float, Reply], None],
        on_mended: Callable[[str], None],
    ) -> None:
        """`on_failing` is told the next hop, for how many seconds to leave it alone, and why;
        `on_mended` the next hop that an operator wants tried all the same."""
        self._store = store
        self._now = now
        self._on_failing = on_failing
        self._on_mended = on_mended
        self._suspended: dict[str, Suspension] = {}
        self._unread: dict[str, _Change] = {}
        self._newest: Stored | None = None
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
        sequence = await self._put(_SUSPENDED, destination, value)
        self._suspended[destination] = Suspension(until)
        entry = _Entry(destination, until)
        self._unread[_subject(_SUSPENDED, destination)] = _Change(sequence, entry)

    async def resume(self, destination: str) -> bool:
        """End a suspension; false if there was none. Raises `StoreError`."""
        known = self.suspension(destination) is not None
        if not known and not await self._is_stored(_SUSPENDED, destination):
            return False
        sequence = await self._remove(_SUSPENDED, destination)
        self._suspended.pop(destination, None)
        self._unread[_subject(_SUSPENDED, destination)] = _Change(sequence, None)
        return True

    async def forget_failing(self, next_hop: str) -> datetime | None:
        """Have no replica leave a next hop alone any more, here from now on. Returns when all have
        heard of it, if that is not now. Raises `StoreError`."""
        subject, heard = _subject(_FAILING, next_hop), None
        stored = await self._store.last(_STREAM, subject)
        if stored is not None:
            if _OPERATION in stored.headers:
                sequence, removed = stored.sequence, stored.time
            else:
                sequence, removed = await self._remove(_FAILING, next_hop), self._now()
            self._unread[subject] = _Change(sequence, None)
            heard = removed + timedelta(seconds=NOTICED_S)
        self._on_mended(next_hop)
        return heard if heard is not None and heard > self._now() else None

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
        found: dict[str, Stored] = {}
        newest: Stored | None = None
        for _ in range(MAX_ENTRIES // PAGE):
            after = newest.sequence if newest is not None else 0
            page = await self._store.page(_STREAM, f"{_PREFIX}>", after_sequence=after, count=PAGE)
            found.update((stored.subject, stored) for stored in page)
            newest = page[-1] if page else newest
            if len(page) < PAGE:
                break
        entries = {subject: _entry(stored) for subject, stored in found.items()}
        in_force = {
            subject: entry
            for subject, entry in entries.items()
            if entry is not None and entry.is_in_force(self._now())
        }
        # If it is empty the sweeper's lease was lost too, and will be there in a minute.
        if newest is not None and not self._is_outdated(newest):
            for next_hop in self._mended(found):
                self._on_mended(next_hop)
            self._put_in_place(dict(in_force), newest)
        for subject, stored in found.items():
            if subject not in in_force and self._now() - stored.time > FORGET_AFTER:
                # What was renewed since it was read stays.
                await self._store.purge(_STREAM, subject, up_to=stored.sequence)

    def _is_outdated(self, newest: Stored) -> bool:
        """Whether more was read before, by a reading that began later or from another server.

        In a bucket that was made anew the sequences begin again, but time goes on.
        """
        known = self._newest
        return known is not None and newest.sequence < known.sequence and newest.time <= known.time

    def _mended(self, found: Mapping[str, Stored]) -> list[str]:
        """The next hops that an operator has had tried at other replicas since the last reading."""
        known = self._newest.sequence if self._newest is not None else 0
        own = {change.sequence for change in self._unread.values()}
        removed = [
            subject
            for subject, stored in found.items()
            if _OPERATION in stored.headers and stored.sequence > known
            if stored.sequence not in own
        ]
        return [name for subject in removed if (name := _name(subject, _FAILING))]

    def _put_in_place(self, entries: dict[str, _Entry], newest: Stored) -> None:
        """Count on these entries, by their subjects: what the bucket held up to a message."""
        if self._newest is not None and newest.sequence < self._newest.sequence:
            self._unread.clear()  # of a bucket that is no more
        self._newest = newest
        self._unread = {
            subject: change
            for subject, change in self._unread.items()
            if change.sequence > newest.sequence
        }
        for subject, change in self._unread.items():
            entries.pop(subject, None)
            if change.entry is not None:
                entries[subject] = change.entry
        suspended = [entry for entry in entries.values() if entry.reply is None]
        self._suspended = {entry.name: Suspension(entry.until) for entry in suspended}
        failing = [entry for entry in entries.values() if entry.reply is not None]
        for entry in failing:
            if entry.reply is not None and entry.until is not None:
                seconds = (entry.until - self._now()).total_seconds()
                self._on_failing(entry.name, seconds, entry.reply)
        SUSPENDED.set(len(suspended))
        FAILING.set(len(failing))

    async def _put(self, kind: str, name: str, value: dict[str, Any]) -> int:
        data = json.dumps(value).encode()
        return await self._store.publish(Outgoing(_subject(kind, name), data))

    async def _remove(self, kind: str, name: str) -> int:
        mark = Outgoing(_subject(kind, name), b"", {_OPERATION: "DEL"})
        return await self._store.publish(mark)

    async def _is_stored(self, kind: str, name: str) -> bool:
        stored = await self._store.last(_STREAM, _subject(kind, name))
        return stored is not None and _OPERATION not in stored.headers


def _subject(kind: str, name: str) -> str:
    return f"{_PREFIX}{kind}.{name.encode().hex()}"


def _name(subject: str, kind: str) -> str:
    """The name in the subject of an entry of this kind; empty if it is none."""
    prefix = f"{_PREFIX}{kind}."
    try:
        return bytes.fromhex(subject.removeprefix(prefix)).decode()
    except ValueError:
        return ""


def _entry(stored: Stored) -> _Entry | None:
    """The entry of a message; None for the mark of a deleted key and for what is no entry."""
    suspended, failing = (_name(stored.subject, kind) for kind in (_SUSPENDED, _FAILING))
    name = suspended or failing
    if not name or _OPERATION in stored.headers:
        return None
    try:
        value = json.loads(stored.data)
        until = datetime.fromisoformat(value["until"]) if value["until"] else None
        reply = None
        if failing:
            reply = make_reply(int(value["code"]), value["enhanced"], value["text"])
        return _Entry(name, until, reply)
    except (ValueError, KeyError, TypeError) as error:
        event(_log, WARNING, "not an entry", subject=stored.subject, reason=str(error))
        return None
