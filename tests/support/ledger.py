"""The books of a load test, kept outside the product: what was sent, answered and delivered.

    sent      before MAIL
    accepted  after the whole 250 line was read
    refused   the server said no; with a 4xx the mail may still arrive if storing was in doubt
    unknown   the connection died after the final dot
    delivered by whoever received it, before it answered 250
    notified  the sender was told that it could not be delivered

`problems` compares them once the queue is drained.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

HEADER = "X-Ledger-Id"


def body_hash(body: bytes) -> str:
    """What two copies of a body are compared by."""
    return hashlib.sha256(body).hexdigest()


def read_mail(content: bytes) -> tuple[str, str]:
    """The ledger id and the body hash of a mail that arrived."""
    head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
    prefix = f"{HEADER}: ".encode()
    ids = [line[len(prefix) :].decode() for line in head.split(b"\n") if line.startswith(prefix)]
    return (ids[0] if len(ids) == 1 else ""), body_hash(body)


@dataclass(slots=True)
class Ledger:
    """The books of one run. Safe to use from several threads."""

    hashes: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    delivered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notified: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def sent(
        self, mail_id: str, body: bytes, recipients: Iterable[str], *, unwanted: bool = False
    ) -> None:
        """Before MAIL. `body` with LF line ends; policy has to refuse an unwanted mail."""
        with self._lock:
            self.hashes[mail_id] = body_hash(body)
            self.recipients[mail_id] = tuple(recipients)
            if unwanted:
                self.unwanted.add(mail_id)

    def was_accepted(self, mail_id: str) -> None:
        """The whole 250 line was read."""
        with self._lock:
            self.accepted.add(mail_id)

    def was_refused(self, mail_id: str, code: int) -> None:
        """Any other answer."""
        with self._lock:
            self.refused[mail_id] = code

    def is_unknown(self, mail_id: str) -> None:
        """The connection died after the final dot."""
        with self._lock:
            self.unknown.add(mail_id)

    def was_delivered(self, content: bytes, recipient: str) -> None:
        """A mail arrived."""
        mail_id, found = read_mail(content)
        with self._lock:
            self.delivered[mail_id, recipient, found] += 1

    def was_notified(self, mail_id: str, recipient: str) -> None:
        """The sender was told that a recipient will not get a mail."""
        with self._lock:
            self.notified[mail_id, recipient] += 1

    def arrived(self) -> set[tuple[str, str]]:
        """The ids and recipients of all that was delivered."""
        with self._lock:
            return {(mail_id, recipient) for mail_id, recipient, _ in self.delivered}

    def missing(self) -> set[tuple[str, str]]:
        """What was accepted and neither arrived nor was told of."""
        done = self.arrived()
        with self._lock:
            wanted = {
                (mail_id, recipient)
                for mail_id in self.accepted
                for recipient in self.recipients[mail_id]
            }
            return wanted - done - set(self.notified)

    @property
    def duplicates(self) -> int:
        """Copies and notifications beyond the first of each."""
        with self._lock:
            counts = [*self.delivered.values(), *self.notified.values()]
        return sum(count - 1 for count in counts)

    def problems(self, *, duplicates_allowed: int) -> list[str]:
        """What must not be, one line each; empty when the books balance."""
        with self._lock:
            return self._problems(duplicates_allowed)

    def _problems(self, duplicates_allowed: int) -> list[str]:
        arrived = self.arrived()
        found = [f"accepted and lost: {each}" for each in sorted(self.missing())]
        found += [
            f"arrived changed: {mail_id}"
            for mail_id, _, digest in self.delivered
            if self.hashes.get(mail_id) != digest
        ]
        found += [
            f"refused for good and yet delivered: {mail_id}"
            for mail_id, _ in sorted(arrived)
            if self.refused.get(mail_id, 0) >= 500
        ]
        found += [
            f"delivered, and the sender was told that it was not: {each}"
            for each in sorted(arrived & set(self.notified))
        ]
        found += [
            f"refused for good through no fault of its own: {mail_id} {code}"
            for mail_id, code in self.refused.items()
            if code >= 500 and mail_id not in self.unwanted
        ]
        found += [f"accepted though unwanted: {each}" for each in self.unwanted & self.accepted]
        if self.duplicates > duplicates_allowed:
            found.append(f"{self.duplicates} duplicates, {duplicates_allowed} allowed")
        return found
