"""Places at which a process can be told to die, so that a test can have it die at the worst moment.

    GATEPOST_FAILPOINTS="after-publish=50,after-dot=200" gatepost up

kills each process with SIGKILL when it comes to a place for the 50th, or the 200th time. Such a
process says so on its standard error first. `@FILE` takes the text from a file. Both are read once,
when the process starts; without the variable a place costs one test of an empty mapping.
"""

from __future__ import annotations

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final

VARIABLE: Final = "GATEPOST_FAILPOINTS"


class Failpoint(StrEnum):
    """Moments at which a crash is most likely to lose or to double a mail."""

    AFTER_DATA = "after-data"
    """The content came in whole; nothing is stored that a record refers to."""
    AFTER_CONTENT = "after-content"
    """A large content is stored, the records are not."""
    BEFORE_PUBLISH = "before-publish"
    AFTER_PUBLISH = "after-publish"
    """The records are stored, the client was told nothing."""
    AFTER_ACCEPT = "after-accept"
    """The client was told 250."""
    AFTER_FETCH = "after-fetch"
    """Delivery has a record in hand."""
    AFTER_CONNECT = "after-connect"
    AFTER_DOT = "after-dot"
    """The next hop has the content and has not answered."""
    AFTER_DELIVERY = "after-delivery"
    """The next hop took the mail; the record is not acknowledged."""
    AFTER_DEFER = "after-defer"
    """The deferred record is stored; the ready one is not acknowledged."""
    AFTER_NOTIFY = "after-notify"
    """The notification is stored; the mail is not removed."""


def parse(text: str) -> dict[Failpoint, int]:
    """How often each place is passed before the process dies there. Raises ValueError."""
    armed: dict[Failpoint, int] = {}
    for setting in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = setting.partition("=")
        if name not in list(Failpoint):
            raise ValueError(f"{VARIABLE}: {name!r} is none of {', '.join(Failpoint)}")
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise ValueError(f"{VARIABLE}: {setting!r} is not NAME=COUNT with a count from 1 on")
        armed[Failpoint(name)] = int(count)
    return armed


def _armed() -> dict[Failpoint, int]:
    try:
        text = os.environ.get(VARIABLE, "")
        return parse(Path(text[1:]).read_text(encoding="ascii") if text[:1] == "@" else text)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


_left = _armed()


def reached(point: Failpoint) -> None:
    """The process came to this place."""
    if point in _left:
        _left[point] -= 1
        if not _left[point]:
            os.write(2, f"failpoint {point}\n".encode("ascii"))
            os.kill(os.getpid(), signal.SIGKILL)
