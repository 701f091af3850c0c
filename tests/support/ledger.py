"""The books of a load test, kept outside the product: what was sent, answered and delivered.

    sent      before MAIL
    accepted  after the whole 250 line was read
    refused   the server said no; with a 4xx the mail may still arrive if storing was in doubt
    unknown   the connection died after the final dot
    delivered by whoever received it

`problems` compares them once the queue is drained.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
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
    """Books of mails with one recipient each. Safe to use from several threads."""

    hashes: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, mail_id: str, body: bytes) -> None:
        """Before MAIL. `body` with LF line ends."""
        with self._lock:
            self.hashes[mail_id] = body_hash(body)

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

    def was_delivered(self, content: bytes) -> None:
        """A mail arrived."""
        mail_id, found = read_mail(content)
        with self._lock:
            self.delivered[mail_id, found] += 1

    def arrived(self) -> set[str]:
        """The ids of all that was delivered."""
        with self._lock:
            return {mail_id for mail_id, _ in self.delivered}

    def problems(self, *, duplicates_allowed: int) -> list[str]:
        """What must not be, one line each; empty when the books balance."""
        arrived = self.arrived()
        found = [f"accepted and lost: {mail_id}" for mail_id in sorted(self.accepted - arrived)]
        found += [
            f"arrived changed: {mail_id}"
            for mail_id, digest in self.delivered
            if self.hashes.get(mail_id) != digest
        ]
        found += [
            f"refused for good and yet delivered: {mail_id}"
            for mail_id in sorted(arrived)
            if self.refused.get(mail_id, 0) >= 500
        ]
        found += [
            f"refused for good through no fault of its own: {mail_id} {code}"
            for mail_id, code in self.refused.items()
            if code >= 500
        ]
        duplicates = sum(count - 1 for count in self.delivered.values())
        if duplicates > duplicates_allowed:
            found.append(f"{duplicates} duplicates, {duplicates_allowed} allowed")
        return found
