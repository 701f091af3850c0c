"""The suppression list: recipients elsewhere that were refused for good, and are not tried again.

Trying on spoils the name that we have with large providers. Kept in the bucket `suppressions`, one
entry for each address; the key is a hash of the address, since keys are subjects. An entry is made
only over a word of the next hop about this address and no other, and only for mail that leaves the
house: strangers must not fill the list.

Guarantees: an entry that cannot be read or written costs an attempt, never a mail.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter

from gatepost.queue.v1.record_pb2 import QueuedMessage, Recipient
from services.common.config.source import ConfigSource
from services.common.jetstream import JetStream, StoreError
from services.common.log import INFO, WARNING, event
from services.common.mail.address import Mailbox, parse_mailbox
from services.common.mail.reply import make_reply
from services.common.queue.record import mailbox_of, pending
from services.common.store import Outgoing, Stored
from services.delivery.outcome import Outcome, Result, result_of
from services.delivery.route import Route, RouteKind

STREAM: Final = "KV_suppressions"
_PREFIX: Final = "$KV.suppressions."
_PAGE: Final = 100

_ABOUT_THE_ADDRESS: Final = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""RFC 3463 §3.2, RFC 7505: no such mailbox, no such host, not an address, moved, takes no mail;
§3.3: disabled. 5.1.7 and 5.1.8 are about the sender."""

_ROUTES: Final = (RouteKind.MX, RouteKind.SMARTHOST)

SUPPRESSED = Counter(
    "gatepost_delivery_suppressed_recipients_total",
    "Recipients not tried because they are on the suppression list.",
)
ADDED = Counter(
    "gatepost_delivery_suppressions_added_total",
    "Entries made in the suppression list because a next hop refused the address.",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Suppression:
    """An entry."""

    mailbox: Mailbox
    since: datetime
    reason: str
    """What the next hop said, or the words of the operator."""
    by_hand: bool = False
    """Made by an operator: does not expire."""


class Suppressions:
    """The list, as shared by all replicas."""

    def __init__(self, store: JetStream, source: ConfigSource, now: Callable[[], datetime]) -> None:
        self._store = store
        self._source = source
        self._now = now

    async def results(self, record: QueuedMessage, route: Route) -> Mapping[str, Result]:
        """The results for those pending recipients that are not tried, by their addresses."""
        if not self._source.current.delivery.suppressions.enabled or route.kind not in _ROUTES:
            return {}
        mailboxes = {each.address: mailbox_of(each) for each in pending(record)}
        try:
            found = await self.find(list(mailboxes.values()))
        except StoreError as error:
            event(_log, INFO, "suppressions not read", reason=str(error))
            return {}
        SUPPRESSED.inc(len(found))
        return {
            address: _refusal(found[mailbox.key])
            for address, mailbox in mailboxes.items()
            if mailbox.key in found
        }

    async def learn(self, recipients: list[Recipient], results: list[Result], route: Route) -> None:
        """Make entries of those that a next hop refused for good, as addresses."""
        if not self._source.current.delivery.suppressions.enabled or route.kind not in _ROUTES:
            return
        for recipient, result in zip(recipients, results, strict=True):
            if not _is_about_the_address(result):
                continue
            reason = f"{result.next_hop}: {result.reply}"
            try:
                await self.add(Suppression(mailbox_of(recipient), self._now(), reason))
            except StoreError as error:
                event(_log, INFO, "suppression not stored", reason=str(error))
            else:
                ADDED.inc()
                event(_log, INFO, "recipient suppressed", recipient=recipient.address)

    # --- the list -------------------------------------------------------------------------------

    async def find(self, mailboxes: list[Mailbox]) -> dict[str, Suppression]:
        """The entries in force of these, by their keys. Raises `StoreError`."""
        subjects = {mailbox.key: _subject(mailbox) for mailbox in mailboxes}
        found = await self._store.last_of(STREAM, sorted(set(subjects.values())))
        entries: dict[str, Suppression] = {}
        for key, subject in subjects.items():
            entry = _entry(found[subject]) if subject in found else None
            if entry is not None and self._is_in_force(entry):
                entries[key] = entry
        return entries

    async def page(self, *, after: int, count: int) -> list[tuple[int, Suppression]]:
        """Entries in force with their sequences, in the order of making. Raises `StoreError`."""
        found: list[tuple[int, Suppression]] = []
        while len(found) < count:
            page = await self._store.page(STREAM, f"{_PREFIX}>", after_sequence=after, count=count)
            for stored in page:
                after = stored.sequence
                entry = _entry(stored)
                if entry is not None and self._is_in_force(entry):
                    found.append((stored.sequence, entry))
            if len(page) < count:
                break
        return found[:count]

    async def add(self, entry: Suppression) -> None:
        """Make or replace an entry. Raises `StoreError`."""
        value = {
            "address": str(entry.mailbox),
            "since": entry.since.isoformat(),
            "reason": entry.reason,
            "by_hand": entry.by_hand,
        }
        await self._store.publish(Outgoing(_subject(entry.mailbox), json.dumps(value).encode()))

    async def add_by_hand(self, mailbox: Mailbox, reason: str) -> Suppression:
        """Make an entry that does not expire. Raises `StoreError`."""
        entry = Suppression(mailbox, self._now(), reason, by_hand=True)
        await self.add(entry)
        return entry

    async def remove(self, mailbox: Mailbox) -> bool:
        """Remove an entry; false if there was none. Raises `StoreError`."""
        return await self._store.purge(STREAM, _subject(mailbox)) > 0

    async def expire(self, *, pause_s: float) -> int:
        """Remove what is not in force any more; how many. Raises `StoreError`."""
        after, count = 0, 0
        while page := await self._store.page(
            STREAM, f"{_PREFIX}>", after_sequence=after, count=_PAGE
        ):
            after = page[-1].sequence
            for stored in page:
                entry = _entry(stored)
                if entry is not None and not self._is_in_force(entry):
                    # What was renewed since the page was read stays.
                    count += await self._store.purge(STREAM, stored.subject, up_to=stored.sequence)
            await asyncio.sleep(pause_s)
        return count

    def _is_in_force(self, entry: Suppression) -> bool:
        expire_after = self._source.current.delivery.suppressions.expire_after
        return entry.by_hand or not expire_after or self._now() - entry.since < expire_after


def _is_about_the_address(result: Result) -> bool:
    # A word to several recipients may be about any of them.
    refused = result.of_recipient and result.outcome is Outcome.PERMANENT
    return refused and result.reply.enhanced in _ABOUT_THE_ADDRESS


def _refusal(entry: Suppression) -> Result:
    since = entry.since.astimezone(UTC).date().isoformat()
    text = f"Not tried: on the suppression list since {since}: {entry.reason}"
    return result_of(make_reply(550, "5.1.1", text))


def _subject(mailbox: Mailbox) -> str:
    return _PREFIX + hashlib.sha256(mailbox.key.encode()).hexdigest()


def _entry(stored: Stored) -> Suppression | None:
    """The entry of a message; None for what is none."""
    try:
        value = json.loads(stored.data)
        return Suppression(
            parse_mailbox(value["address"], smtputf8=True),
            datetime.fromisoformat(value["since"]).astimezone(UTC),
            str(value["reason"]),
            bool(value["by_hand"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        event(_log, WARNING, "not a suppression", subject=stored.subject, reason=str(error))
        return None
