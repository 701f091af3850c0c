"""Debian's Dovecot as a mail store behind LMTP, and as the keeper of passwords for Postfix.

An instance of its own: everything in one temporary folder, one port on loopback, no service
manager. Life cycle: `start` → running → `close`. Needs root, since its parts change to other users.
"""

from __future__ import annotations

import contextlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.ports import free_port
from tests.support.programs import program

MAIL_USER = "mail"

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.02
_CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = lmtp
ssl = no
auth_mechanisms = plain login
disable_plaintext_auth = no
first_valid_uid = {uid}
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = username_format=%Lu {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%Ld/%Ln
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service stats {{
  chroot =
}}
protocol lmtp {{
  mail_plugins = quota
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage={quota_kilobytes}K
}}
"""


class Dovecot:
    """One instance. Not started by the constructor."""

    def __init__(self, users: Mapping[str, str], *, quota_kilobytes: int = 1000) -> None:
        """`users` are addresses with their passwords."""
        # Not below pytest's folders: its parts run as other users, who cannot go there.
        self._folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self._folder.chmod(0o755)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        user = pwd.getpwnam(MAIL_USER)
        for name in ("run", "mail"):
            (self._folder / name).mkdir()
        shutil.chown(self._folder / "mail", MAIL_USER)
        lines = [f"{address}:{{PLAIN}}{password}\n" for address, password in users.items()]
        (self._folder / "users").write_text("".join(lines), encoding="ascii")
        text = _CONFIG.format(
            folder=self._folder,
            uid=user.pw_uid,
            gid=user.pw_gid,
            port=self.port,
            quota_kilobytes=quota_kilobytes,
        )
        (self._folder / "dovecot.conf").write_text(text, encoding="ascii")

    @property
    def auth_socket(self) -> Path:
        """Where passwords are checked, for Postfix."""
        return self._folder / "auth"

    def start(self) -> None:
        """Start, and return when it takes mail. Raises `RuntimeError` with the log."""
        self._process = subprocess.Popen(
            [program("dovecot"), "-F", "-c", str(self._folder / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.log()
                self.close()
                raise RuntimeError(f"dovecot did not start:\n{log}")
            time.sleep(_ASK_AGAIN_SECONDS)

    def mails(self, address: str) -> list[bytes]:
        """What is in a mailbox."""
        local_part, _, domain = address.partition("@")
        new = self._folder / "mail" / domain / local_part / "Maildir" / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    def log(self) -> str:
        """All that it logged so far."""
        path = self._folder / "log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def close(self) -> None:
        """End it and remove everything. Harmless twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listens(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection,
        ):
            return connection.recv(3) == b"220"
        return False
