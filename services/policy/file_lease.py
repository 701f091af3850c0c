"""Which content of `recipients.accounts_file` the directory follows, when replicas have another.

A Secret that was changed reaches the pods up to minutes apart. Who read a content just now takes
the lease for it; who has that content too renews it in every round; who has another one leaves the
directory alone, since a newer file is on its way to it. A lease that nobody renewed for
`PATIENCE_S` goes to whoever asks next. No clocks are compared: everybody measures by its own how
long it has been seeing the same lease.

The lease is a key beside the accounts. There may be passwords in the file, so what is kept of its
content is a hash that is as hard to guess from as theirs.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.common.jetstream import Bucket
from services.common.log import INFO, event
from services.policy.passwords import Passwords
from services.policy.store_deadline import in_time

KEY: Final = "accounts-file"
PATIENCE_S: Final = 600.0
"""Two rounds of those who renew it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Lease:
    """What is stored. Each renewal is another revision; the mark stays."""

    mark: str
    revision: int


_NOBODYS: Final = _Lease("", 0)


class FileLease:
    """This replica's part. Raises `StoreError`, `Conflict` among them, and `Busy`."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Bucket]],
        passwords: Passwords,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opened = opened
        self._passwords = passwords
        self._clock = clock
        self._digest = ""
        """Of the content that we have."""
        self._is_news = False
        self._mark = ""
        """The mark of the lease that is ours; blank when there is none."""
        self._others = _NOBODYS
        self._others_since = 0.0

    def read(self, content: bytes) -> None:
        """The file has this content now."""
        self._digest = hashlib.sha256(content).hexdigest()
        self._is_news = True
        self._mark = ""
        self._others = _NOBODYS

    async def hold(self) -> bool:
        """Take or renew the lease; False while another replica's content counts."""
        lease = await self._stored()
        if lease.mark and (lease.mark == self._mark or await self._is_ours(lease)):
            await self._store(lease.mark, lease.revision)
        elif self._is_news or not lease.mark or self._is_left(lease):
            await self._store(await self._passwords.hash(self._digest), lease.revision)
        else:
            return False
        return True

    async def held(self) -> bool:
        """Whether no other content has come to count since `hold`."""
        return (await self._stored()).mark == self._mark

    async def _is_ours(self, lease: _Lease) -> bool:
        if lease.mark == self._others.mark:
            return False  # as we found out before
        return await self._passwords.verify(lease.mark, self._digest)

    def _is_left(self, lease: _Lease) -> bool:
        """Whether those who had it are gone."""
        if lease != self._others:
            if lease.mark != self._others.mark:
                text = (
                    "another replica has read another accounts file; it counts until ours changes"
                )
                event(_log, INFO, text)
            self._others, self._others_since = lease, self._clock()
        return self._clock() - self._others_since >= PATIENCE_S

    async def _stored(self) -> _Lease:
        bucket = await self._opened()
        async with in_time():
            found = await bucket.get(KEY)
        return _NOBODYS if found is None else _Lease(found[0].decode("ascii", "replace"), found[1])

    async def _store(self, mark: str, revision: int) -> None:
        bucket = await self._opened()
        async with in_time():
            if revision:
                await bucket.update(KEY, mark.encode(), revision=revision)
            else:
                await bucket.create(KEY, mark.encode())
        self._mark, self._is_news = mark, False
        self._others = _NOBODYS
