"""Keys in Kubernetes Secrets: one Secret for each key, in one namespace, for many replicas.

Every replica watches the Secrets, so all of them sign with the same keys within seconds. Changes
name the version that they were made from, and the API server refuses those that come too late.
A Secret is never removed: that of a deleted key stays, without the private part, as the memory that
the selector was used.

To back the keys up, save the Secrets (`kubectl get secrets -o yaml -l
app.kubernetes.io/part-of=gatepost`); to restore them, apply the file: running services see it
within seconds.

Life cycle of following: list → watch from there → watch on when the server ends a watch → list
again when the version is too old or the connection was lost. While the API server is away, what was
known stays in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from services.common.log import ERROR, INFO, event
from services.keys.duty import Duty
from services.keys.key import Key, KeyDataError
from services.keys.kubernetes_api import GONE, ApiError, Change, SecretApi
from services.keys.private_key import PrivateKey, PrivateKeyError
from services.keys.secret_form import (
    REGISTER,
    SELECTION,
    change,
    erasure,
    foreign_content,
    is_secret_name,
    meant_by,
    new_register,
    new_secret,
    read_duties,
    read_secret,
    register_patch,
    replacement,
    secret_name,
)
from services.keys.store import (
    Broken,
    Complete,
    Entry,
    ForeignKeyError,
    Gone,
    KeyChangedError,
    KeyExistsError,
    Listener,
    Lost,
    News,
    Register,
    StoreUnavailableError,
)

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 5.0
"""An API server that is back should be noticed within seconds."""
SHORTEST_WATCH_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class KubernetesStore:
    """A `KeyStore` in the Secrets of a namespace."""

    def __init__(self, namespace: str) -> None:
        """A blank namespace is that of the pod."""
        self._api = SecretApi(namespace, selection=SELECTION)
        self._lost = False

    async def open(self) -> None:
        """See `KeyStore.open`."""
        await self._api.open()

    async def follow(self, listener: Listener) -> None:
        """See `KeyStore.follow`."""
        retry = FIRST_RETRY_SECONDS
        while True:
            try:
                version = await self._tell_all(listener)
                retry = FIRST_RETRY_SECONDS
                while True:
                    version = await self._tell_changes(listener, version)
            except ApiError as error:
                if error.status == GONE:
                    event(_log, INFO, "too much has changed since: listing the keys again")
                else:
                    self._lose(listener, str(error))
                await asyncio.sleep(retry)
                retry = min(2 * retry, LAST_RETRY_SECONDS)

    async def create(self, key: Key, private: PrivateKey) -> Entry:
        """See `KeyStore.create`."""
        try:
            secret = await self._api.create(new_secret(key, private))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise KeyExistsError(f"{key.record_name} was used already") from error
            raise _unavailable(error) from error
        return Entry(secret_name(key), key, private, _version(secret))

    async def update(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.update`."""
        patch = change(entry.key, key, version=entry.version)
        return await self._patch(entry, patch, key, entry.private)

    async def erase(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.erase`."""
        patch = erasure(entry.key, key, version=entry.version)
        return await self._patch(entry, patch, key, None)

    async def restore(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.restore`."""
        if entry.private is None:
            raise ValueError("what has no private part is not restored")
        whole = new_secret(key, entry.private)
        secret = await self._put(entry.name, whole, replacement(whole))
        return Entry(entry.name, key, entry.private, _version(secret))

    async def register(self, domain: str, duty: Duty) -> None:
        """See `KeyStore.register`."""
        patch = register_patch(domain, duty)
        try:
            await self._api.patch(REGISTER, patch)
        except ApiError as error:
            if error.reason != "NotFound":
                raise _unavailable(error) from error
            await self._put(REGISTER, new_register(domain, duty), patch)

    async def foreign_pem(self, name: str, field: str) -> bytes:
        """See `KeyStore.foreign_pem`: from another Secret of the namespace."""
        if not is_secret_name(name):
            raise ForeignKeyError("this cannot be the name of a Secret")
        try:
            secret = await self._api.find(name)
            if secret is None:
                raise ForeignKeyError("there is no such Secret in the keys' namespace")
            return foreign_content(secret, field)
        except ApiError as error:
            raise _unavailable(error) from error
        except KeyDataError as error:
            raise ForeignKeyError(str(error)) from None

    async def close(self) -> None:
        """See `KeyStore.close`."""
        await self._api.close()

    async def _put(self, name: str, whole: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        """Create a Secret, or patch the one that is there; the object as it was stored."""
        try:
            try:
                return await self._api.create(whole)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                return await self._api.patch(name, patch)
        except ApiError as error:
            raise _unavailable(error) from error

    async def _patch(
        self, entry: Entry, patch: dict[str, Any], key: Key, private: PrivateKey | None
    ) -> Entry:
        try:
            secret = await self._api.patch(entry.name, patch)
        except ApiError as error:
            if error.reason == "Conflict":
                text = f"the Secret {entry.name} was changed by somebody else"
                raise KeyChangedError(text) from error
            if error.reason == "NotFound":
                raise KeyChangedError(f"the Secret {entry.name} is gone") from error
            raise _unavailable(error) from error
        return Entry(entry.name, key, private, _version(secret))

    async def _tell_all(self, listener: Listener) -> str:
        listing = await self._api.list()
        for secret in listing.items:
            listener(_read(secret))
        names = frozenset(_name(secret) for secret in listing.items)
        if REGISTER not in names:
            listener(Register({}))
        listener(Complete(names - {REGISTER}))
        if self._lost:
            event(_log, INFO, "keys can be read again", namespace=self._api.namespace)
        self._lost = False
        return listing.version

    async def _tell_changes(self, listener: Listener, version: str) -> str:
        """Follow one watch to its end; the version to go on from."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for each in self._api.watch(version):
            version = each.version or version
            _tell(listener, each)
        # Something in between that ends every watch at once must not have us ask without a pause.
        await asyncio.sleep(max(0.0, began + SHORTEST_WATCH_SECONDS - loop.time()))
        return version

    def _lose(self, listener: Listener, reason: str) -> None:
        listener(Lost(reason))
        if not self._lost:
            namespace = self._api.namespace
            event(_log, ERROR, "keys cannot be read", namespace=namespace, reason=reason)
        self._lost = True


def _tell(listener: Listener, each: Change) -> None:
    if each.kind in ("ADDED", "MODIFIED"):
        listener(_read(each.secret))
    elif each.kind == "DELETED":
        name = _name(each.secret)
        listener(Register({}) if name == REGISTER else Gone(name))


def _read(secret: Mapping[str, Any]) -> News:
    name = _name(secret)
    if name == REGISTER:
        return _read_register(secret)
    try:
        return read_secret(secret)
    except (KeyDataError, PrivateKeyError) as error:
        domain, selector = meant_by(name)
        return Broken(name, str(error), domain, selector)


def _read_register(secret: Mapping[str, Any]) -> Register:
    try:
        return Register(read_duties(secret))
    except KeyDataError as error:
        return Register({}, f"{REGISTER}: {error}")


def _name(secret: Mapping[str, Any]) -> str:
    return str((secret.get("metadata") or {}).get("name", ""))


def _version(secret: Mapping[str, Any]) -> str:
    return str((secret.get("metadata") or {}).get("resourceVersion", ""))


def _unavailable(error: ApiError) -> StoreUnavailableError:
    event(_log, ERROR, "the API server does not do what a call needs", reason=str(error))
    return StoreUnavailableError(f"the key store cannot be used: {error}")
