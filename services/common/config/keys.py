"""`keys`: where DKIM keys are kept, and how their publication is checked."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from services.common.config.shapes import POSITIVE_DURATION, of_text
from services.common.config.types import DnsServer, Duration, FilePath, Section

LEAST_INTERVAL: Final = timedelta(seconds=1)
"""Every round asks the servers of every key that is not published."""
LEAST_LIFETIME: Final = timedelta(hours=1)
"""Mail that is an hour under way must not fail for it."""


class KeyStoreKind(StrEnum):
    """The kinds of store."""

    FILE = "file"
    KUBERNETES = "kubernetes"


def _interval(value: timedelta) -> timedelta:
    if value < LEAST_INTERVAL:
        raise ValueError("at least 1s")
    return value


def _lifetime(value: timedelta) -> timedelta:
    if value and value < LEAST_LIFETIME:
        raise ValueError("0 for none, or at least 1h")
    return value


class Keys(Section):
    """DKIM keys."""

    store: KeyStoreKind = KeyStoreKind.FILE
    """*restart* `file`: one file for each key in `directory`, readable by nobody else.
    `kubernetes`: one Secret for each key in `namespace`."""
    namespace: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")] = ""
    """*restart* Where the Secrets are. Blank: the namespace of the pod. One that holds nothing else
    is best, because Kubernetes cannot limit what may be read to the keys alone."""
    directory: FilePath = Path("/var/lib/gatepost/keys")
    """*restart* Made if it is missing. Back it up: it holds the only copies of the private keys."""
    check_interval: Annotated[
        Duration, AfterValidator(_interval), of_text(POSITIVE_DURATION, "60m")
    ] = timedelta(minutes=1)
    """How often records that are not published yet are looked for, and keys that expire replaced.
    The records of keys that sign are looked for at every tenth time."""
    signature_lifetime: Annotated[Duration, AfterValidator(_lifetime)] = timedelta(0)
    """When signatures expire (`x=`), after they were made. `0`: never. Mail that waits for longer
    elsewhere then fails; `7d` is a sensible choice."""
    publication_servers: tuple[DnsServer, ...] = ()
    """*restart* The servers that are asked whether a key's record is visible, `address` or
    `address:port`. Blank: all authoritative servers of the zone, which are found by its NS records.
    Name others where those cannot be reached from this machine, or are not what the world asks."""
