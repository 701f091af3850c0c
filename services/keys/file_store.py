"""Keys in files: one file for each key in one directory, for machines without Kubernetes.

A file is called like the record of its key and ends in `.json`; it holds the public fields and the
private key in PEM form. The register of the domains that sign is a file beside them. To back the
keys up, copy the directory; to restore them, copy it back: a running service sees it within
seconds.

Guarantees: the directory is 0700 and the files 0600, also after somebody copied them less
carefully; a file is written beside its place, flushed to the disk and moved there, so it is whole
or not there at all; changes are made under a lock that other processes see, and only to the version
that was read. Everything blocking runs in one thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from services.common.log import ERROR, INFO, WARNING, event
from services.common.start import StartError
from services.keys.duty import Duty, format_duty, read_register
from services.keys.key import Key, KeyDataError, from_fields, to_fields
from services.keys.private_key import PrivateKey, PrivateKeyError
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
    private_part,
)

POLL_INTERVAL_SECONDS: Final = 1.0
"""Looking at a directory costs microseconds; news of a restored backup should not take longer."""
MAX_FILE_OCTETS: Final = 64 * 1024
REGISTER: Final = "signed-domains"
"""An object of domains and their duties, as JSON. No key is called like this."""
MAX_REGISTER_OCTETS: Final = 16 * 1024 * 1024
"""A hundred thousand domains."""
SUFFIX: Final = ".json"
PRIVATE_FIELD: Final = "private-key-pem"

_LOCK: Final = ".lock"
_UNFINISHED: Final = ".new-"
_NAME_SEPARATOR: Final = "._domainkey."

_log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int]


class FileStore:
    """A `KeyStore` in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._stamps: dict[str, Stamp] = {}
        self._register_stamp: Stamp | None = None
        self._lost = False

    async def open(self) -> None:
        """Make the directory, and make it ours alone. Raises `StartError`."""
        try:
            await self._run(self._prepare)
        except OSError as error:
            why = error.strerror or error
            raise StartError(f"keys.directory: {self._directory}: {why}") from error

    async def follow(self, listener: Listener) -> None:
        """See `KeyStore.follow`."""
        while True:
            for news in await self._run(self._look):
                listener(news)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def create(self, key: Key, private: PrivateKey) -> Entry:
        """See `KeyStore.create`."""
        return await self._run(lambda: self._create(key, private))

    async def update(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.update`."""
        return await self._run(lambda: self._replace(entry, key, entry.private))

    async def erase(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.erase`."""
        return await self._run(lambda: self._replace(entry, key, None))

    async def restore(self, entry: Entry, key: Key) -> Entry:
        """See `KeyStore.restore`."""
        return await self._run(lambda: self._put(entry, key, entry.private))

    async def register(self, domain: str, duty: Duty) -> None:
        """See `KeyStore.register`."""
        await self._run(lambda: self._register(domain, duty))

    async def foreign_pem(self, name: str, field: str) -> bytes:
        """See `KeyStore.foreign_pem`: there are no Secrets here."""
        raise ForeignKeyError("keys are kept in files here; send the key as private_key_pem")

    async def close(self) -> None:
        """See `KeyStore.close`."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(self._directory, 0o700)
        with self._locked():
            # Left by a process that ended while it wrote; nothing refers to them.
            for path in self._directory.glob(f"{_UNFINISHED}*"):
                path.unlink()

    def _look(self) -> list[News]:
        """What changed since the last look; everything, the first time."""
        try:
            # Before the keys: what it says was written after their states, not before.
            register = self._look_at_register()
            present = self._present()
        except OSError as error:
            return self._cannot_look(error)
        if self._lost:
            event(_log, INFO, "keys can be read again", directory=self._directory)
        self._lost = False
        changed = [name for name, stamp in present.items() if self._stamps.get(name) != stamp]
        gone = self._stamps.keys() - present.keys()
        news: list[News] = [self._read(name) for name in sorted(changed)]
        news += [Gone(name) for name in sorted(gone)]
        self._stamps = present
        return [*news, *register, Complete(frozenset(present))]

    def _look_at_register(self) -> list[Register]:
        """The register, if it is another one than before. Raises `OSError`."""
        before, self._register_stamp = self._register_stamp, self._stamp_of_register()
        return [] if self._register_stamp == before else [self._read_register()]

    def _stamp_of_register(self) -> Stamp | None:
        try:
            return _stamp((self._directory / REGISTER).stat())
        except FileNotFoundError:
            return None

    def _cannot_look(self, error: OSError) -> list[News]:
        reason = error.strerror or str(error)
        if not self._lost:
            event(_log, ERROR, "keys cannot be read", directory=self._directory, reason=reason)
        self._lost = True
        return [Lost(reason)]

    def _present(self) -> dict[str, Stamp]:
        present: dict[str, Stamp] = {}
        with os.scandir(self._directory) as files:
            for file in files:
                if file.name.endswith(SUFFIX) and not file.name.startswith("."):
                    with suppress(FileNotFoundError):  # removed this very moment
                        present[file.name] = _stamp(file.stat())
        return present

    def _read(self, name: str) -> Entry | Broken | Gone:
        selector, _, domain = name.removesuffix(SUFFIX).partition(_NAME_SEPARATOR)
        try:
            content = self._content(name)
            entry = _parse(name, content)
            if _file_name(entry.key) != name:
                raise KeyDataError("it is the key of another domain or selector")
        except FileNotFoundError:
            return Gone(name)
        except OSError as error:
            return Broken(name, error.strerror or str(error), domain, selector)
        except (KeyDataError, PrivateKeyError) as error:
            return Broken(name, str(error), domain, selector)
        return entry

    def _read_register(self) -> Register:
        try:
            content = self._content(REGISTER, limit=MAX_REGISTER_OCTETS)
            return Register(read_register(_strings(content)))
        except FileNotFoundError:
            return Register({})
        except OSError as error:
            return Register({}, f"{REGISTER}: {error.strerror or error}")
        except KeyDataError as error:
            return Register({}, f"{REGISTER}: {error}")

    def _register(self, domain: str, duty: Duty) -> None:
        with self._locked():
            known = self._read_register()
            if known.problem:
                # What it said of other domains would be lost.
                raise StoreUnavailableError(known.problem)
            lines = {name: format_duty(each) for name, each in known.duties.items()}
            lines[domain] = format_duty(duty)
            content = json.dumps(lines, indent=2, sort_keys=True).encode() + b"\n"
            self._write(content).rename(self._directory / REGISTER)
            self._flush_directory()

    def _content(self, name: str, *, limit: int = MAX_FILE_OCTETS) -> bytes:
        path = self._directory / name
        _make_private(path, 0o600)
        with path.open("rb") as file:
            return file.read(limit)

    def _create(self, key: Key, private: PrivateKey) -> Entry:
        name = _file_name(key)
        content = _format(key, private)
        with self._locked():
            fresh = self._write(content)
            try:
                # Unlike a rename, a link never replaces what is there.
                os.link(fresh, self._directory / name)
            except FileExistsError:
                raise KeyExistsError(f"{key.record_name} was used already") from None
            finally:
                fresh.unlink()
            self._flush_directory()
        return Entry(name, key, private, _version(content))

    def _replace(self, entry: Entry, key: Key, private: PrivateKey | None) -> Entry:
        with self._locked():
            try:
                current = self._content(entry.name)
            except FileNotFoundError:
                raise KeyChangedError(f"the file {entry.name} is gone") from None
            if _version(current) != entry.version:
                raise KeyChangedError(f"the file {entry.name} was changed by somebody else")
            return self._move_in(entry, key, private)

    def _put(self, entry: Entry, key: Key, private: PrivateKey | None) -> Entry:
        with self._locked():
            return self._move_in(entry, key, private)

    def _move_in(self, entry: Entry, key: Key, private: PrivateKey | None) -> Entry:
        content = _format(key, private)
        self._write(content).rename(self._directory / entry.name)
        self._flush_directory()
        return Entry(entry.name, key, private, _version(content))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes; also what turns errors of the system into ours."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._directory / _LOCK, flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
        except OSError as error:
            reason = error.strerror or str(error)
            event(_log, ERROR, "keys cannot be written", directory=self._directory, reason=reason)
            raise StoreUnavailableError(f"the key directory cannot be used: {reason}") from error

    def _write(self, content: bytes) -> Path:
        """A new file with this content, on the disk, under a name that nobody looks at."""
        path = self._directory / f"{_UNFINISHED}{secrets.token_hex(8)}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _flush_directory(self) -> None:
        """Without it a crash could forget a name whose file is safe."""
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _file_name(key: Key) -> str:
    return key.record_name + SUFFIX


def _stamp(about: os.stat_result) -> Stamp:
    return about.st_mtime_ns, about.st_size, about.st_ino


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _format(key: Key, private: PrivateKey | None) -> bytes:
    fields = to_fields(key)
    if private is not None:
        fields[PRIVATE_FIELD] = private.pem().decode("ascii")
    return json.dumps(fields, indent=2).encode() + b"\n"


def _strings(content: bytes) -> dict[str, str]:
    """An object of strings. Raises `KeyDataError`."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        # Without the cause: it quotes the content.
        raise KeyDataError("it is not JSON") from None
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise KeyDataError("it is not an object of strings")
    return fields


def _parse(name: str, content: bytes) -> Entry:
    """Raises `KeyDataError` and `PrivateKeyError`."""
    fields = _strings(content)
    pem = fields.pop(PRIVATE_FIELD, "")
    key = from_fields(fields)
    return Entry(name, key, private_part(key, pem.encode()), _version(content))


def _make_private(path: Path, mode: int) -> None:
    """Take away what others may do with a file or directory of ours."""
    found = stat.S_IMODE(path.stat().st_mode)
    if found & 0o077:
        path.chmod(mode)
        event(_log, WARNING, "others could read keys; no longer", path=path, mode=f"{found:04o}")
