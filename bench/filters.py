"""What checks or signs mail for Postfix: policyd-spf, opendkim and rspamd, from Debian.

Their defaults, but for what makes them judge mail from loopback as that of anybody else, their
sockets, and the resolver.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Protocol

from bench.names import LOOPBACK
from bench.processes import end
from tests.support.programs import program

USER: Final = "postfix"
"""Postfix's user, who must be able to open the sockets."""

_START_SECONDS: Final = 90.0  # rspamd compiles its expressions first
_POLL_SECONDS: Final = 0.05
_NOBODY_OF_OURS: Final = "192.0.2.254"
"""An address that no client has, for lists of clients that are not checked: both programs have
loopback in theirs where it is left blank."""


class Filter(Protocol):
    """A program that Postfix asks."""

    main: str
    """Lines of main.cf."""
    master: str
    """Lines of master.cf."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def roots(self) -> list[int]:
        """Its processes, but for those that Postfix itself starts."""
        ...


class PolicydSpf:
    """policyd-spf, which Postfix starts as often as it needs it."""

    def __init__(self, folder: Path, dns_port: int) -> None:
        self._folder, self._dns_port = folder, dns_port
        self.main = (
            "smtpd_recipient_restrictions = reject_unauth_destination,"
            " check_policy_service unix:private/policyd-spf\n"
            "policyd-spf_time_limit = 3600\n"
        )
        self.master = (
            "policyd-spf unix - n n - 0 spawn user=nobody"
            f" argv=/usr/bin/python3 {folder}/policyd-spf {folder}/policyd-spf.conf\n"
        )

    def start(self) -> None:
        """Write its configuration, and the few lines that tell it the resolver's port."""
        self._folder.mkdir(parents=True)
        (self._folder / "policyd-spf.conf").write_text(
            "debugLevel = 1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n"
            "PermError_reject = False\nTempError_Defer = False\n"
            f"skip_addresses = {_NOBODY_OF_OURS}/32\n"
        )
        (self._folder / "policyd-spf").write_text(_POLICYD_SPF.format(port=self._dns_port))

    def stop(self) -> None:
        """Postfix ends it."""

    def roots(self) -> list[int]:
        """Those that Postfix started are of its family."""
        return []


# What /usr/bin/policyd-spf does; its libraries know of no resolver but that of the system.
_POLICYD_SPF: Final = """\
import sys

import spf

if hasattr(spf, "DNS"):
    spf.DNS.defaults["server"] = ["127.0.0.1"]
    spf.DNS.defaults["port"] = {port}
else:
    import dns.resolver

    dns.resolver.default_resolver = dns.resolver.Resolver(configure=False)
    dns.resolver.default_resolver.nameservers = ["127.0.0.1"]
    dns.resolver.default_resolver.port = {port}

from spf_engine.policyd_spf import main

sys.exit(main())
"""


class _Milter:
    """A milter that runs beside Postfix, at a unix socket."""

    master = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "milter.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.main = f"smtpd_milters = unix:{self._socket}\n"

    def _run(self, *argv: str) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "start.log").open("wb"),
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "start.log").read_text("utf-8", "replace")
                raise RuntimeError(f"{argv[0]} did not start: {said}")
            time.sleep(_POLL_SECONDS)

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True)
        shutil.chown(self._folder, USER)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)

    def roots(self) -> list[int]:
        """Its first process."""
        return [self._process.pid] if self._process is not None else []


class Opendkim(_Milter):
    """opendkim: a verifier, or with a key (domain, selector, file) a signer."""

    def __init__(
        self, folder: Path, dns_port: int, signing: tuple[str, str, Path] | None = None
    ) -> None:
        super().__init__(folder)
        self._dns_port, self._signing = dns_port, signing

    def start(self) -> None:
        """Start, and return when its socket is there."""
        self._make_folder()
        config = self._folder / "opendkim.conf"
        config.write_text(
            f"Socket local:{self._socket}\nUserID {USER}\nUMask 007\nSyslog yes\n"
            f"OversignHeaders From\nNameservers {LOOPBACK}@{self._dns_port}\n{self._role()}"
        )
        self._run(program("opendkim"), "-f", "-x", str(config))

    def _role(self) -> str:
        if self._signing is None:
            return f"Mode v\nInternalHosts {_NOBODY_OF_OURS}\n"
        domain, selector, key = self._signing
        shutil.chown(key, USER)
        return (
            f"Mode s\nInternalHosts {LOOPBACK}\nCanonicalization relaxed/relaxed\n"
            f"RequireSafeKeys no\nDomain {domain}\nSelector {selector}\nKeyFile {key}\n"
        )


class Rspamd(_Milter):
    """rspamd as a milter that scans by itself: SPF, DKIM, DMARC, and the header that tells them."""

    def __init__(self, folder: Path, dns_port: int) -> None:
        super().__init__(folder)
        self._dns_port = dns_port

    def start(self) -> None:
        """Start, and return when its socket is there."""
        self._make_folder()
        (self._folder / "suffixes").write_text(_top_level(), encoding="utf-8")
        config = self._folder / "rspamd.conf"
        config.write_text(
            _RSPAMD.format(
                folder=self._folder,
                port=self._dns_port,
                socket=self._socket,
                user=USER,
                workers=os.cpu_count() or 1,
            )
        )
        folders = (f"--var={name}={self._folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR"))
        self._run(program("rspamd"), "-f", "-u", USER, "-g", USER, "-c", str(config), *folders)


def _top_level() -> str:
    """The one-label suffixes of its list: to compile all of them takes it a minute."""
    lines = _SUFFIXES.read_text(encoding="utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if "." not in line and not line.startswith("//"))


_SUFFIXES: Final = Path("/usr/share/rspamd/effective_tld_names.dat")
_RSPAMD: Final = """\
options {{
  pidfile = "{folder}/rspamd.pid";
  filters = "dkim";
  cache_file = "{folder}/symbols.cache";
  hs_cache_dir = "{folder}";
  control_socket = "{folder}/control.sock mode=0600";
  url_tld = "{folder}/suffixes";
  tempdir = "{folder}";
  local_addrs = [];
  dns {{ nameserver = ["127.0.0.1:{port}"]; timeout = 1s; sockets = 16; retransmits = 5; }}
}}
logging {{ type = "file"; filename = "{folder}/rspamd.log"; level = "info"; }}
metric {{ name = "default"; actions {{ reject = 150; add_header = 60; greylist = 40; }} }}
worker "rspamd_proxy" {{
  bind_socket = "{socket} mode=0660 owner={user}";
  milter = yes;
  timeout = 120s;
  count = {workers};
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{
  path = "/usr/share/rspamd/plugins/spf.lua";
  path = "/usr/share/rspamd/plugins/dmarc.lua";
  path = "/usr/share/rspamd/plugins/milter_headers.lua";
}}
spf {{ check_local = true; spf_cache_size = 2k; spf_cache_expire = 1d; }}
dkim {{
  check_local = true;
  dkim_cache_size = 2k;
  dkim_cache_expire = 1d;
  time_jitter = 6h;
  trusted_only = false;
  skip_multi = false;
}}
dmarc {{ check_local = true; }}
milter_headers {{ use = ["authentication-results"]; skip_local = false; }}
"""
