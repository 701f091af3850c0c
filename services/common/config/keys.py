"""`keys`: where DKIM keys are kept, and how their publication is checked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from services.common.config.types import FilePath, Section
from services.common.dns.servers import parse_server


class KeyStoreKind(StrEnum):
    """The kinds of store."""

    FILE = "file"


def _server(text: str) -> str:
    parse_server(text)
    return text


class Keys(Section):
    """DKIM keys."""

    store: KeyStoreKind = KeyStoreKind.FILE
    """`file`: one file for each key in `directory`, readable by nobody else."""
    directory: FilePath = Path("/var/lib/gatepost/keys")
    """Made if it is missing. Back it up: it holds the only copies of the private keys."""
    publication_servers: tuple[Annotated[str, AfterValidator(_server)], ...] = ()
    """The servers that are asked whether a key's record is visible, `address` or `address:port`.
    Blank: all authoritative servers of the zone, which are found by its NS records. Name others
    where those cannot be reached from this machine, or are not the ones that the world asks."""
