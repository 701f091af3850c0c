"""Where it was measured: machine, versions, and what else the machine did."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from services.cli.up.nats_server import program as nats_server
from tests.support.programs import program

_OWN: Final = Path(__file__).parent.parent


def description() -> list[str]:
    """One line each, for people."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    one, five, fifteen = os.getloadavg()
    spf, dns = _package("postfix-policyd-spf-python"), _said(program("unbound"), "-V")
    postfix = _said(program("postconf"), "-d", "-h", "mail_version")
    machine = f"{os.cpu_count()} × {_processor()}, {memory:.0f} GiB; {platform.release()}"
    nats = _said(nats_server(), "--version")
    python = f"Python {platform.python_version()} ({sys.base_prefix})"
    return [
        f"{machine}; {_distribution()}",
        f"Gatepost {_commit()}, {python}, {nats}",
        f"Postfix {postfix}, {_said(program('rspamd'), '--version')}, policyd-spf {spf}",
        f"{_said(program('opendkim'), '-V')}, unbound {dns}",
        f"load average at the end: {one:.1f} {five:.1f} {fifteen:.1f}",
    ]


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return "an unknown distribution"


def _commit() -> str:
    found = _said("git", "-C", str(_OWN), "rev-parse", "--short=10", "HEAD")
    return f"at {found}" if found else "without a commit"


def _package(name: str) -> str:
    return _said("dpkg-query", "-W", "-f", "${Version}", name)


def _said(*argv: str) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else ""
