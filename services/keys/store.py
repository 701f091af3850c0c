"""Where keys are kept: one protocol, several kinds of store.

A store keeps each key whole: its public fields and its private part. It tells whoever follows it
what it holds, as news: first everything there is, then every change, made by us or by anybody else
(another replica, an operator with an editor, a restored backup).

Beside the keys it keeps the register of `duty`: which domains' mail has to be signed.

Guarantees of every store: what `create`, `update` and `erase` return is on stable storage; two
writers cannot overwrite each other; a selector that was ever used in a domain cannot be created
again; an entry that cannot be read is reported as such and left as it is; nothing private is in an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from services.keys.duty import Duty
from services.keys.key import Key, KeyDataError
from services.keys.private_key import PrivateKey, from_pem
from services.keys.state import KeyState


class KeyStoreError(Exception):
    """The store could not do it; the message is one line for operators."""


class StoreUnavailableError(KeyStoreError):
    """The store cannot be reached, or refuses us; later it may work."""


class KeyExistsError(KeyStoreError):
    """The selector is, or was, used in this domain."""


class KeyChangedError(KeyStoreError):
    """Somebody else changed or removed the key since it was read."""


class ForeignKeyError(KeyStoreError):
    """There is no key to import at that place; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as the store holds it."""

    name: str
    """What the store calls it: a file's or a Secret's name."""
    key: Key
    private: PrivateKey | None
    """None for a deleted key, and for no other."""
    version: str
    """Opaque; another one after every change."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something is in the place of a key that cannot be read as one."""

    name: str
    reason: str
    """One line for people, without anything of the content."""
    domain: str = ""
    """Whose key it is; blank if not even that is known."""
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such entry any more."""

    name: str


@dataclass(frozen=True, slots=True)
class Register:
    """The whole register, as the store has it; told before `Complete`."""

    duties: Mapping[str, Duty]
    """By domain."""
    problem: str = ""
    """Why it cannot be read, one line; blank if it can. A register that is missing is empty."""


@dataclass(frozen=True, slots=True)
class Complete:
    """All that there is was told; what is not among these names does not exist."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lost:
    """The store cannot be read just now; what was told before may be out of date."""

    reason: str


News: TypeAlias = Entry | Broken | Gone | Register | Complete | Lost
Listener: TypeAlias = Callable[[News], None]


class KeyStore(Protocol):
    """One place that keeps keys. Used from the event loop."""

    async def open(self) -> None:
        """Make the store usable. Raises `StartError` for what an operator has to mend."""
        ...

    async def follow(self, listener: Listener) -> None:
        """Tell what there is and every change, for ever; a store that cannot be read is retried."""
        ...

    async def create(self, key: Key, private: PrivateKey) -> Entry:
        """Keep a new key. Raises `KeyExistsError`, `StoreUnavailableError`."""
        ...

    async def update(self, entry: Entry, key: Key) -> Entry:
        """Replace the public fields of an entry. Raises `KeyChangedError`,
        `StoreUnavailableError`."""
        ...

    async def erase(self, entry: Entry, key: Key) -> Entry:
        """As `update`, and destroy the private part; the name stays taken."""
        ...

    async def restore(self, entry: Entry, key: Key) -> Entry:
        """Put a whole entry in its place again, over garbage or where nothing is any more.

        Raises `StoreUnavailableError`.
        """
        ...

    async def register(self, domain: str, duty: Duty) -> None:
        """Write a domain's line of the register, whatever it says now; the others stay.

        Raises `StoreUnavailableError`.
        """
        ...

    async def foreign_pem(self, name: str, field: str) -> bytes:
        """What stands in `field` of something that is no entry of ours, to be imported.

        A blank field means the only one. Raises `ForeignKeyError`, `StoreUnavailableError`.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


def private_part(key: Key, pem: bytes) -> PrivateKey | None:
    """The private part that belongs to `key`, as a store has it; None for a deleted key.

    Raises `KeyDataError` and `PrivateKeyError`.
    """
    if key.state is KeyState.DELETED:
        return None
    private = from_pem(pem)
    if private.public != key.public:
        raise KeyDataError("the private key does not belong to the public one")
    return private
