"""The programs that tests start: those of the virtualenv and those of `tools/test-programs`."""

import os
import shutil
import sys
from pathlib import Path


def extend_search_path() -> None:
    """Put the virtualenv's programs first and Postfix's, which live where only root looks, last."""
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath), "/usr/sbin"])


def program(name: str) -> str:
    """The path of a program.

    Raises `RuntimeError` with the command that installs it: a test whose program is missing fails,
    it is not skipped.
    """
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed. Run: make setup programs")
    return path
