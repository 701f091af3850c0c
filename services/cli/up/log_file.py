"""What a child logs, in files of bounded size: `name.log`, older ones as `name.log.1` and so on.

Lines come in whole and are written as they come, many at a time; a file that is full is moved away
between two writes. A disk that takes nothing costs the lines, not the child.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Final

FILE_OCTETS: Final = 10 * 2**20
OLDER_FILES: Final = 3


class LogFile:
    """One log, opened at the first line."""

    def __init__(self, path: Path, *, file_octets: int = FILE_OCTETS) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._file_octets = file_octets
        self._file: BinaryIO | None = None
        self._octets = 0

    def write(self, lines: bytes) -> None:
        """Append whole lines."""
        with contextlib.suppress(OSError):
            if self._file is not None and self._octets + len(lines) > self._file_octets:
                self._rotate()
            if self._file is None:
                # Unbuffered: who looks at the log of a child that has a problem finds all of it.
                self._file = self._path.open("ab", buffering=0)
                self._octets = self._path.stat().st_size
            self._octets += self._file.write(lines) or 0

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _rotate(self) -> None:
        self.close()
        for number in range(OLDER_FILES, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
