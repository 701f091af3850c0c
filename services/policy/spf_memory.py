"""What SPF came to, remembered for as long as the DNS says the same.

An evaluation (RFC 7208 §4) is a function of the client, the domain and the records read; the sender
and the HELO name count only through macros (§7). So where no record has a macro, the outcome
stands until one of its answers is another one in the resolver's cache: the very objects are
compared, so nothing outlives its TTL here.

Bounded in entries and in what an entry may hold, which is strangers' records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from services.common.dns import Answer, Resolver

MAX_ENTRIES = 4096
MAX_RECORDS = 64
MAX_OCTETS = 4096
"""Of the texts of one evaluation, kept once more as evidence: 32 MB when everything is full. Real
ones have a few hundred."""

T = TypeVar("T")

Key = tuple[str, str]
"""The client and the domain."""


class SpfMemory(Generic[T]):
    """Outcomes by client and domain."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[T, tuple[Answer, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def recall(self, key: Key, resolver: Resolver) -> tuple[T | None, list[Answer]]:
        """The outcome, if it still stands; and the answers that the evaluation would begin with.

        Those are good either way: an evaluation takes the same way up to the first other answer.
        """
        entry = self._entries.get(key)
        fresh: list[Answer] = []
        if entry is None:
            return None, fresh
        outcome, answers = entry
        for answer in answers:
            known = resolver.cached(answer.name, answer.rdtype)
            if known is not None:
                fresh.append(known)
            if known is not answer:
                return None, fresh
        self._entries.move_to_end(key)
        return outcome, fresh

    def keep(self, key: Key, outcome: T, answers: tuple[Answer, ...]) -> None:
        """Remember an outcome, if it depends on nothing but the key and these answers."""
        if not answers or not _is_plain(answers):
            return
        self._entries[key] = (outcome, answers)
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)


def _is_plain(answers: Iterable[Answer]) -> bool:
    """Whether the records have no macros and are few and short enough to be kept."""
    records = [record for answer in answers for record in answer.records]
    texts = [record for record in records if isinstance(record, bytes)]
    if len(records) > MAX_RECORDS or sum(map(len, texts)) > MAX_OCTETS:
        return False
    return not any(b"%" in text for text in texts)
