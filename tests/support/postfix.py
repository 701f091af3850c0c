"""Debian's Postfix as a server that relays everything to a port of this machine.

An instance of its own: configuration, queue and log in one temporary folder, no syslog, no service
manager, one port on loopback. Life cycle: `relaying` starts it and stops it. Needs root, since its
parts change to other users.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.programs import program

_DAEMONS = "/usr/lib/postfix/sbin"
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = {daemons}
maillog_file = {folder}/data/log
maillog_file_prefixes = {folder}
syslog_name = postfix-test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.example.net
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{next_hop}
smtp_tls_security_level = {tls}
smtp_host_lookup = native
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running instance; mail is given to `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder

    async def command(self, verb: str) -> None:
        """`postfix start`, `stop` or another of its commands."""
        process = await asyncio.create_subprocess_exec(
            *(program("postfix"), "-c", str(self._folder / "conf"), verb),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, f"{output.decode()}\n{self.log()}"

    def log(self) -> str:
        """What it logged so far."""
        path = self._folder / "data" / "log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    async def emptied(self, *, seconds: float = 30) -> None:
        """Return when nothing is left to send."""

        async def is_empty() -> bool:
            # On its way back from "deferred" a mail is in "active" again, where we have looked.
            places = ("maildrop", "incoming", "active", "deferred", "active")
            queued = (self._folder / "queue" / place for place in places)
            return not any(path.is_file() for place in queued for path in place.rglob("*"))

        try:
            await eventually(is_empty, seconds=seconds)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"mail is left:\n{self.log()}") from error


@asynccontextmanager
async def relaying(
    next_hop: int, *, tls: str = "may", settings: Mapping[str, str] | None = None
) -> AsyncIterator[Postfix]:
    """A Postfix that sends all mail to that port; `tls`: its smtp_tls_security_level.

    `settings` are further ones of main.cf, which come instead of those here.
    """
    if os.getuid() != 0:
        pytest.skip("POSTFIX WAS NOT TESTED: it starts as root only")
    folder, postfix = _prepared(next_hop, tls, settings or {})
    try:
        await postfix.command("start")
        try:
            yield postfix
        finally:
            await postfix.command("stop")
    finally:
        shutil.rmtree(folder)


def _prepared(next_hop: int, tls: str, settings: Mapping[str, str]) -> tuple[Path, Postfix]:
    # Not below pytest's folders: its parts run as other users, who cannot go there.
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))
    folder.chmod(0o755)
    for name in ("conf", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    port = free_port()
    main = _MAIN.format(folder=folder, daemons=_DAEMONS, next_hop=next_hop, tls=tls)
    lines = [line for line in main.splitlines() if line.partition(" =")[0] not in settings]
    lines += [f"{key} = {value}" for key, value in settings.items()]
    (folder / "conf" / "main.cf").write_text("\n".join(lines) + "\n", encoding="ascii")
    (folder / "conf" / "master.cf").write_text(_MASTER.format(port=port), encoding="ascii")
    return folder, Postfix(folder, port)
