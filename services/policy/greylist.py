"""Greylisting (RFC 6647): who was seen before, in the KV bucket `callouts`, for all replicas.

What is seen is a client's network, a sender and a recipient together. Seen for the first time, it
is told to come again; a mail server does, most senders of spam do not. What has passed is
remembered until the bucket forgets it, a week after it was last seen.

The key is a hash, so neither the length nor the letters of an address matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from services.common.config.policy import Greylist as Settings
from services.common.jetstream import Bucket, JetStream
from services.common.store import Conflict, StoreError, Unavailable
from services.policy.store_deadline import in_time
from services.policy.subject import Envelope, IPAddress

BUCKET = "callouts"
_PREFIX = "greylist"
_REFRESH = timedelta(days=1)
"""What has passed is written again so often at most, to be remembered further."""

_IPV4_PREFIX = 24
_IPV6_PREFIX = 64
"""Large senders try again from a neighbouring address."""


@dataclass(frozen=True, slots=True)
class Seen:
    """When something was first seen, or last seen after it had passed."""

    passed: bool
    at: datetime


class Greylist:
    """What was seen. A store that is away remembers nothing and holds nothing up."""

    def __init__(
        self, store: JetStream, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._bucket: Bucket | None = None
        self._now = now

    async def admits(
        self, envelope: Envelope, recipient: str, settings: Settings, *, dry_run: bool
    ) -> bool:
        """Whether this may pass. Without `dry_run` it is noted as seen."""
        try:
            return await self._admits(envelope, recipient, settings, dry_run=dry_run)
        except Conflict:
            return False  # seen by another replica this very moment, for the first time
        except StoreError:
            return True

    async def _admits(
        self, envelope: Envelope, recipient: str, settings: Settings, *, dry_run: bool
    ) -> bool:
        bucket = await self._open()
        key = key_of(envelope, recipient)
        async with in_time():
            found = await bucket.get(key)
        now = self._now()
        seen = _decoded(found[0]) if found is not None else None
        admitted, note = judge(seen, now, settings)
        if note is not None and not dry_run:
            value = f"{'passed' if note.passed else 'first'} {note.at.isoformat()}".encode()
            async with in_time():
                if found is None:
                    await bucket.create(key, value)
                else:
                    await bucket.put(key, value)
        return admitted

    async def _open(self) -> Bucket:
        if not self._store.connected:
            raise Unavailable("not connected to NATS")
        if self._bucket is None:
            async with in_time():
                self._bucket = await self._store.bucket(BUCKET)
        return self._bucket


def judge(seen: Seen | None, now: datetime, settings: Settings) -> tuple[bool, Seen | None]:
    """Whether it may pass, and what is to be noted about it."""
    if seen is None:
        return False, Seen(passed=False, at=now)
    age = now - seen.at
    if seen.passed:
        return True, Seen(passed=True, at=now) if age >= _REFRESH else None
    if age < settings.delay:
        return False, None
    if age > settings.retry_within:
        return False, Seen(passed=False, at=now)
    return True, Seen(passed=True, at=now)


def key_of(envelope: Envelope, recipient: str) -> str:
    """The key of a client's network, a sender and a recipient."""
    sender = envelope.sender.key if envelope.sender is not None else envelope.sender_text
    parts = (_network(envelope.session.address), sender, recipient.casefold())
    text = "\0".join(parts).encode(errors="surrogatepass")
    return f"{_PREFIX}.{hashlib.sha256(text).hexdigest()[:40]}"


def _network(address: IPAddress) -> str:
    width, prefix = (32, _IPV4_PREFIX) if isinstance(address, IPv4Address) else (128, _IPV6_PREFIX)
    return f"{int(address) >> (width - prefix)}/{prefix}"


def _decoded(data: bytes) -> Seen | None:
    state, _, time = data.decode("ascii", errors="replace").partition(" ")
    try:
        return Seen(state == "passed", datetime.fromisoformat(time))
    except ValueError:
        return None
