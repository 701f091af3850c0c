"""What we demand of the other end of a TLS session, as contexts of the library."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def unverified() -> ssl.SSLContext:
    """Encryption without knowing with whom.

    The exchange of a domain has no name that could be trusted without DNSSEC or MTA-STS, and the
    alternative is clear text (RFC 7435).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def verifying(ca_file: Path | None) -> ssl.SSLContext:
    """Encryption with the host that was asked for, certified by the authorities of a file.

    None means those of the system. Raises OSError for a file that cannot be used.
    """
    # Loading the system's authorities takes 20 ms; a file that was exchanged is read anew.
    return _verifying(ca_file, ca_file.stat().st_mtime_ns if ca_file else 0)


def authenticating(extra_ca_file: Path | None) -> ssl.SSLContext:
    """As `verifying`, by the authorities of the system and those of a file.

    For names that a domain's policy gives (RFC 8461 §4.2): only the alternative names of a
    certificate count, not its subject. Raises OSError for a file that cannot be used.
    """
    changed = extra_ca_file.stat().st_mtime_ns if extra_ca_file else 0
    return _authenticating(extra_ca_file, changed)


@lru_cache(maxsize=2)
def _authenticating(extra_ca_file: Path | None, _changed: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if extra_ca_file is not None:
        context.load_verify_locations(extra_ca_file)
    return context


@lru_cache(maxsize=8)
def _verifying(ca_file: Path | None, _changed: int) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
