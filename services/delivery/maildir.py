"""Mailboxes as Maildirs: `<directory>/<domain>/<local part>/{tmp,new,cur}`, spam in `.Junk`.

Guarantees
- When `commit` returns the mail survives a power failure: the file and its folder are synced.
- A reader never sees half a mail: it is written in `tmp` and renamed into `new`.
- A mail that is delivered again, after a crash of ours, takes the name it had: it is there once
  unless somebody has moved it in the meantime.
- No address leads out of the directory: what is not plain in a name is encoded.
Nothing is ever deleted but what we made in `tmp`. Everything here blocks; it belongs into a thread.

Life cycle of a deposit: `begin` → `write` any number of times → `commit` or `abandon`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
from pathlib import Path
from typing import Final

from services.common.mail.address import Mailbox
from services.common.mail.reply import Reply
from services.delivery.maildir_quota import MailboxFull, check, note

JUNK: Final = ".Junk"

_PROCESS: Final = secrets.token_hex(8)
_count = itertools.count()

_PARTS: Final = ("tmp", "new", "cur")
_UNSAFE: Final = re.compile(rb"[^a-z0-9_+=@.-]|^\.")
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600

STORED: Final = Reply(250, "2.1.5", "Delivered to the mailbox")
NO_SPACE: Final = Reply(452, "4.3.1", "There is no room for the mailbox")
MAILBOX_FULL: Final = Reply(452, "4.2.2", "The mailbox is full")
CANNOT_STORE: Final = Reply(451, "4.3.0", "The mailbox cannot be written to just now")


def mailbox_path(directory: Path, mailbox: Mailbox) -> Path:
    """The folder of an account."""
    local_part, _, domain = mailbox.key.rpartition("@")
    return directory / _safe(domain) / _safe(local_part)


def file_name(message_id: str, accept_time: int, octets: int) -> str:
    """The name of a mail in `new`: the same at each delivery of it, and its alone.

    Its end tells the size, as Maildir++ has it, so that counting need not look at each file.
    """
    return f"{accept_time}.{message_id}.gatepost,S={octets}"


def reply_to(error: OSError) -> Reply:
    """What a failure means. None is permanent: disks are mended, mailboxes cleared."""
    if isinstance(error, MailboxFull):
        return MAILBOX_FULL
    return NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else CANNOT_STORE


class Deposit:
    """One mail on its way into one mailbox. Every method raises OSError."""

    def __init__(
        self, mailbox: Path, name: str, *, junk: bool, octets: int = 0, quota: int = 0
    ) -> None:
        """`octets` will be written, and the mailbox may hold `quota`; 0: as many as there are."""
        self._mailbox = mailbox
        self._octets = octets
        self._quota = quota
        self._folder = mailbox / JUNK if junk else mailbox
        self._name = name
        self._temporary = self._folder / "tmp" / f"{name}.{_PROCESS}.{next(_count)}"
        self._file = -1

    def begin(self) -> None:
        """Make the file, and the mailbox if this is its first mail. Raises `MailboxFull`."""
        try:
            self._file = self._opened()
        except FileNotFoundError:
            self._make_folders()
            self._file = self._opened()
        if self._quota:
            check(self._mailbox, self._quota, self._octets)

    def write(self, data: bytes) -> None:
        """Append to the file."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def commit(self) -> None:
        """Make the mail durable and visible."""
        os.fsync(self._file)
        self._close()
        self._temporary.rename(self._folder / "new" / self._name)
        _sync(self._folder / "new")
        if self._quota:
            note(self._mailbox, self._octets)

    def abandon(self) -> None:
        """Remove what was written. Never raises."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _opened(self) -> int:
        return os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)

    def _make_folders(self) -> None:
        """The folders, and the entries that lead to them on the disk."""
        for path in {self._mailbox, self._folder}:
            for part in _PARTS:
                _make(path / part)
        if self._folder != self._mailbox:
            # Maildir++: readers take a folder for one of mail by this file.
            (self._folder / "maildirfolder").touch(mode=_FILE_MODE)
        domain = self._mailbox.parent
        for path in (self._folder, self._mailbox, domain, domain.parent):
            _sync(path)


def _make(folder: Path) -> None:
    """A folder and those above it, closed to others: `parents=True` leaves them to the umask."""
    try:
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    except FileNotFoundError:
        _make(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safe(name: str) -> str:
    """A part of an address as one path component that is neither hidden nor special."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], name.encode()).decode("ascii")
