"""How much a mailbox holds, kept as Maildir++ has it: the file `maildirsize` of the mailbox.

Its first line is the quota, each further line octets and mails that came or went; whoever delivers
or deletes appends a line, so a sum tells the size without looking at the mails. It is counted anew
when it is missing, long or for another quota, and when the mailbox looks full and the count is not
fresh: a reader of mail that does not keep the file only has mail wait a little longer.

Several deliveries at the same time may together go over the quota by what they deliver. Everything
here blocks; it belongs into a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import Final

FILE: Final = "maildirsize"
MAX_OCTETS: Final = 5120
"""A longer file is counted anew (Maildir++), so that reading it stays cheap."""

FRESH_S: Final = 15 * 60
_MODE: Final = 0o600
_SIZE_IN_NAME: Final = re.compile(r",S=(\d+)(?:[:,]|$)")


class MailboxFull(OSError):
    """The mail does not fit into the mailbox."""


def check(mailbox: Path, quota: int, octets: int) -> None:
    """Raise `MailboxFull` if a mail of so many octets does not fit into a mailbox that exists.

    OSError if nobody can tell.
    """
    size = _known(mailbox, quota)
    if size is None or (size + octets > quota and _age_s(mailbox) > FRESH_S):
        size = _counted(mailbox, quota)
    if size + octets > quota:
        raise MailboxFull(f"{size} of {quota} octets are in use")


def note(mailbox: Path, octets: int) -> None:
    """A mail came. Never raises: it is then found by the next count."""
    with contextlib.suppress(OSError):
        file = os.open(mailbox / FILE, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{octets} 1\n".encode("ascii"))
        finally:
            os.close(file)


def _known(mailbox: Path, quota: int) -> int | None:
    """The size by the file; None if it has to be counted."""
    try:
        with (mailbox / FILE).open("rb") as file:
            text = file.read(MAX_OCTETS + 1)
    except FileNotFoundError:
        return None
    first, *lines = text.decode("ascii", "replace").splitlines() or [""]
    if len(text) > MAX_OCTETS or first != f"{quota}S":
        return None
    try:
        return sum(int(line.split()[0]) for line in lines if line.strip())
    except ValueError:
        return None


def _age_s(mailbox: Path) -> float:
    """How long ago the last word about the size was written."""
    return time.time() - (mailbox / FILE).stat().st_mtime


def _counted(mailbox: Path, quota: int) -> int:
    """Count, and write the file anew."""
    octets, mails = 0, 0
    folders = [mailbox, *(each for each in mailbox.glob(".*") if (each / "cur").is_dir())]
    for folder in folders:
        for part in ("new", "cur"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder / part) as entries:
                for entry in entries:
                    size = _size(entry)
                    octets, mails = octets + size, mails + (1 if size else 0)
    fresh = mailbox / "tmp" / f"{FILE}.{secrets.token_hex(8)}"
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        os.write(file, f"{quota}S\n{octets} {mails}\n".encode("ascii"))
    finally:
        os.close(file)
    fresh.rename(mailbox / FILE)
    return octets


def _size(entry: os.DirEntry[str]) -> int:
    """Octets of a mail, by its name if that tells."""
    told = _SIZE_IN_NAME.search(entry.name)
    if told is not None:
        return int(told[1])
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # read or removed a moment ago
        return 0
