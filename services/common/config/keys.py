"""`keys`: where DKIM keys are kept."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from services.common.config.types import FilePath, Section


class KeyStore(StrEnum):
    """The kinds of store."""

    FILE = "file"


class Keys(Section):
    """DKIM keys."""

    store: KeyStore = KeyStore.FILE
    """`file`: one file for each key in `directory`, readable by nobody else."""
    directory: FilePath = Path("/var/lib/gatepost/keys")
