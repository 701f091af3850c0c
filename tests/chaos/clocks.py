"""The clocks of the services of one installation: each may be set ahead or back while it runs."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.installation import SERVICES

_LOADED_FROM = Path(__file__).parent / "jumping_clock"


class Clocks:
    """By how much each is ahead, in a file that its process has mapped into memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        for name in SERVICES:
            (folder / name).write_bytes(_octets(0))

    @property
    def environment(self) -> Mapping[str, str]:
        """What the installation has to be started with."""
        path = os.pathsep.join(filter(None, (str(_LOADED_FROM), os.environ.get("PYTHONPATH"))))
        return {"CHAOS_CLOCKS": str(self._folder), "PYTHONPATH": path}

    def jump(self, names: Iterable[str], ahead_s: int) -> None:
        """Set the clocks of these services to so much after the right time."""
        for name in names:
            with (self._folder / name).open("r+b") as file:
                file.write(_octets(ahead_s))


def _octets(seconds: int) -> bytes:
    return struct.pack("q", seconds)
