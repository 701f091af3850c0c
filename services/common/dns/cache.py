"""Answers that are still good: a bounded, least-recently-used cache with an expiry for each.

RFC 1035 §3.2.1 (TTL), RFC 2308 §5 (negative answers). A hit is two dictionary operations and one
look at the clock, since policy makes thousands a second. Bounded twice: by entries, and by the
memory that they hold, because whoever owns a domain can put 64 KB into one answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.common.dns.answer import Answer, RecordType

MEAN_ENTRY_OCTETS = (
    2048  # most answers are far smaller; a full cache of large ones holds fewer entries
)
_ANSWER_OCTETS = 800  # an Answer, its name and summary, its place in the cache
_RECORD_OCTETS = 100  # a record besides its text: the object and its numbers


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    expires: float
    octets: int


class AnswerCache:
    """Maps (canonical name, record type) to an answer until it expires. Zero entries: keeps
    nothing."""

    def __init__(self, *, max_entries: int, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_octets = max_entries * MEAN_ENTRY_OCTETS
        self._clock = clock
        self._entries: OrderedDict[tuple[str, RecordType], _Entry] = OrderedDict()
        self._octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer if there is one that has not expired."""
        key = (name, rdtype)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.expires:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.answer

    def put(self, answer: Answer, *, seconds: float) -> None:
        """Keep an answer for so many seconds, at the price of the ones longest unused."""
        key = (answer.name, answer.rdtype)
        if key in self._entries:
            self._drop(key)
        if seconds <= 0:
            return
        entry = _Entry(answer, self._clock() + seconds, _octets(answer))
        self._entries[key] = entry
        self._octets += entry.octets
        while self._entries and self._overfull():
            self._drop(next(iter(self._entries)))

    def _overfull(self) -> bool:
        return len(self._entries) > self._max_entries or self._octets > self._max_octets

    def _drop(self, key: tuple[str, RecordType]) -> None:
        self._octets -= self._entries.pop(key).octets


def _octets(answer: Answer) -> int:
    """Roughly what an answer takes in memory."""
    text = sum(len(record) for record in answer.records if isinstance(record, str | bytes))
    # The summary of an answer holds it all again.
    return _ANSWER_OCTETS + len(answer.records) * _RECORD_OCTETS + 2 * text
