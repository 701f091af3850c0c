"""Postfix with its defaults, in a folder of its own. What checks or signs mail for it: `filters`.

Different from Debian's defaults: ports and folders, no chroot, a log file in its folder (as ours
are), and one relay domain, whose mail goes to the sink.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from bench.contender import Name, Surroundings
from bench.filters import USER, Filter
from bench.mail import RECIPIENT_DOMAIN
from bench.names import LOOPBACK
from bench.processes import end_family
from bench.wire import wait_for_greeting
from tests.support.ports import free_port
from tests.support.programs import program

HOSTNAME: Final = "mail.example.test"
_START_SECONDS: Final = 20.0
_DAEMONS: Final = "/usr/lib/postfix/sbin"
_MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = {user}
setgid_group = postdrop
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
meta_directory = /etc/postfix
myhostname = {hostname}
mydestination =
inet_interfaces = {loopback}
inet_protocols = ipv4
relay_domains = {domain}
transport_maps = inline:{{{{{domain} = relay:[{loopback}]:{sink}}}}}
alias_maps =
smtputf8_enable = yes
"""
_MASTER: Final = """\
{loopback}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One Postfix, with the programs that it asks."""

    def __init__(
        self,
        name: Name,
        surroundings: Surroundings,
        filters: Sequence[Filter] = (),
        *,
        settings: str = "",
        evidence: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.port = free_port()
        self.evidence = tuple(evidence)
        self._folder = surroundings.folder
        self._sink_port = surroundings.sink_port
        self._filters = filters
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and what it asks, and return when it takes mail."""
        for place in ("conf", "spool", "data"):
            (self._folder / place).mkdir(parents=True)
        shutil.chown(self._folder / "data", USER)
        for each in self._filters:
            each.start()
        main = _MAIN.format(
            folder=self._folder,
            daemons=_DAEMONS,
            user=USER,
            hostname=HOSTNAME,
            loopback=LOOPBACK,
            domain=RECIPIENT_DOMAIN,
            sink=self._sink_port,
        )
        master = _MASTER.format(loopback=LOOPBACK, port=self.port)
        self._write("main.cf", main + self._settings + _lines(f.main for f in self._filters))
        self._write("master.cf", master + _lines(f.master for f in self._filters))
        self._process = subprocess.Popen(
            [program("postfix"), "-c", str(self._folder / "conf"), "start-fg"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "start.log").open("wb"),
            # Ctrl-C is for us alone: without the shell above it we would not find the master.
            start_new_session=True,
        )
        wait_for_greeting(self.port, self._process, seconds=_START_SECONDS)

    def stop(self) -> None:
        """End it and what it asks."""
        if self._process is not None:
            end_family(self._process)  # a shell that waits for the master daemon
        for each in self._filters:
            each.stop()

    def roots(self) -> list[int]:
        """Postfix's master, and the filters that run beside it."""
        own = [self._process.pid] if self._process is not None else []
        return own + [pid for each in self._filters for pid in each.roots()]

    def members(self) -> dict[str, int]:
        """None: they come and go."""
        return {}

    def _write(self, name: str, text: str) -> None:
        (self._folder / "conf" / name).write_text(text, encoding="utf-8")


def _lines(parts: object) -> str:
    return "".join(parts)  # type: ignore[arg-type]
