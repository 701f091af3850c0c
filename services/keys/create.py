"""New keys: made here, or made elsewhere and imported.

A request that comes twice (the answer got lost) makes one key: its id is kept with the key, and
whoever sends it again is given that key. Making an RSA key takes up to seconds, in one thread of
its own, so that signing goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.common.log import INFO, event
from services.common.rpc.errors import already_exists, invalid_argument
from services.keys.failure import store_failures
from services.keys.key import MAX_RECORD_NAME_OCTETS, Key, KeyType, record_name, whole_seconds
from services.keys.keyring import Keyring
from services.keys.private_key import PrivateKey, PrivateKeyError, from_pem, generate
from services.keys.selector import SelectorError, proposed
from services.keys.state import KeyState
from services.keys.store import Entry, ForeignKeyError, KeyExistsError, KeyStore

_MAX_PROPOSALS: Final = 20
"""Another replica may take what we propose; more often than this it cannot be chance."""
_NEWS_SECONDS: Final = 3.0
"""How long news of another replica's key takes at most, while the store is well."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What is asked for, checked."""

    domain: str
    selector: str = ""
    """Blank: one is proposed."""
    key_type: KeyType = KeyType.RSA
    bits: int
    expiry: timedelta = timedelta(0)
    """Until the key should be replaced; 0 for never."""
    request_id: str = ""
    predecessor: str = ""


class KeyMaker:
    """Makes keys and hands them to the store and the keyring."""

    def __init__(self, store: KeyStore, keyring: Keyring, now: Callable[[], datetime]) -> None:
        self._store = store
        self._keyring = keyring
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="key-generation")
        # One at a time: a request that is sent again while the first is under way must find it.
        self._alone = asyncio.Lock()

    async def create(self, wanted: NewKey) -> Key:
        """A new key, or the one that an earlier request with this id made. Raises `RpcFailure`."""
        async with self._alone:
            known = self._made_before(wanted)
            if known is not None:
                return known
            self._check_free(wanted)
            loop = asyncio.get_running_loop()
            private = await loop.run_in_executor(
                self._thread, lambda: generate(wanted.key_type, bits=wanted.bits)
            )
            # It took its time, in which another replica may have answered the same request.
            known = self._made_before(wanted)
            if known is not None:
                return known
            return await self._keep(wanted, private, origin="made")

    async def read_foreign(self, pem: bytes, name: str, field: str) -> PrivateKey:
        """A private key made elsewhere: `pem`, or what the store finds under `name`.

        Raises `RpcFailure`.
        """
        if bool(pem) == bool(name):
            raise invalid_argument(
                "either private_key_pem or secret_name", reason="INVALID_PRIVATE_KEY"
            )
        try:
            with store_failures():
                return from_pem(await self._store.foreign_pem(name, field) if name else pem)
        except (ForeignKeyError, PrivateKeyError) as error:
            # Without the cause, which may have seen the key.
            what = "secret_name" if name else "private_key_pem"
            raise invalid_argument(f"{what}: {error}", reason="INVALID_PRIVATE_KEY") from None

    async def take_over(self, wanted: NewKey, private: PrivateKey) -> Key:
        """A key that was made elsewhere, pending like any other. Raises `RpcFailure`."""
        async with self._alone:
            # A key that is lost may come back in this way too.
            if wanted.selector not in self._keyring.lost_selectors(wanted.domain):
                self._check_free(wanted)
            return await self._keep(wanted, private, origin="imported")

    async def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _made_before(self, wanted: NewKey) -> Key | None:
        entry = self._keyring.made_by(wanted.request_id) if wanted.request_id else None
        if entry is None:
            return None
        key = entry.key
        asked = (wanted.domain, wanted.key_type, wanted.bits, wanted.selector or key.selector)
        if asked != (key.domain, key.key_type, key.bits, key.selector):
            raise invalid_argument(
                "the request_id belongs to an earlier request that asked for another key",
                reason="REQUEST_ID_REUSED",
            )
        if key.state is KeyState.DELETED:
            raise already_exists(
                f"the key {key.selector} that this request_id made was deleted meanwhile",
                reason="KEY_DELETED",
            )
        return key

    def _check_free(self, wanted: NewKey) -> None:
        if wanted.selector and wanted.selector in self._keyring.selectors(wanted.domain):
            raise _used(wanted.domain, wanted.selector)

    async def _keep(self, wanted: NewKey, private: PrivateKey, *, origin: str) -> Key:
        taken: set[str] = set()
        while True:
            key = self._described(wanted, private, taken)
            try:
                with store_failures():
                    entry = await self._store.create(key, private)
            except KeyExistsError:
                known = await self._made_elsewhere(wanted, key.selector)
                if known is not None:
                    return known
                taken.add(key.selector)
                if wanted.selector or len(taken) >= _MAX_PROPOSALS:
                    raise _used(key.domain, key.selector) from None
                continue
            return self._kept(entry, origin)

    async def _made_elsewhere(self, wanted: NewKey, selector: str) -> Key | None:
        """The key that another replica made for this very request a moment ago.

        The store refused a selector that we have not heard of; the news is on its way.
        """
        if not wanted.request_id:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_SECONDS):
                while selector not in self._keyring.selectors(wanted.domain):
                    await self._keyring.changed()
        return self._made_before(wanted)

    def _kept(self, entry: Entry, origin: str) -> Key:
        self._keyring.take(entry)
        key = entry.key
        event(
            _log,
            INFO,
            "key created",
            origin=origin,
            domain=key.domain,
            selector=key.selector,
            key_type=key.key_type,
            bits=key.bits,
        )
        return key

    def _described(self, wanted: NewKey, private: PrivateKey, taken: set[str]) -> Key:
        created = whole_seconds(self._now())
        selector = wanted.selector or self._proposal(wanted, created, taken)
        if len(record_name(wanted.domain, selector)) > MAX_RECORD_NAME_OCTETS:
            raise invalid_argument(
                f"the name of the record would be longer than {MAX_RECORD_NAME_OCTETS} octets",
                reason="NAME_TOO_LONG",
            )
        key = Key(
            domain=wanted.domain,
            selector=selector,
            key_type=private.key_type,
            bits=private.bits,
            public=private.public,
            created=created,
            request_id=wanted.request_id,
            predecessor=wanted.predecessor,
        )
        return replace(key, expires=created + wanted.expiry) if wanted.expiry else key

    def _proposal(self, wanted: NewKey, created: datetime, taken: set[str]) -> str:
        used = self._keyring.selectors(wanted.domain) | taken
        try:
            return proposed(wanted.key_type, created.date(), used)
        except SelectorError as error:
            raise already_exists(str(error), reason="SELECTORS_USED_UP") from error


def _used(domain: str, selector: str) -> Exception:
    return already_exists(
        f"the selector {selector} is or was used in {domain}; receivers may remember its old"
        " record, so choose another",
        reason="SELECTOR_USED",
    )
