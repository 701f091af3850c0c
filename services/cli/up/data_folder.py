"""The folder in which `gatepost up` keeps everything: made on first use, used by one at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.cli.failure import CliError, Exit


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises `CliError` when another one holds it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(folder / "lock", "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CliError(
            f"--data {folder}: cannot be written: {error.strerror}", Exit.USAGE
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CliError(
                f"--data {folder}: another `gatepost up` uses it; stop that or take another"
            ) from None
        yield
