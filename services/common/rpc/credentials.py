"""TLS of gRPC ports: the server's certificate and, for mutual TLS, the authorities of clients.

Changed files are taken up by the next handshake, at most `RELOAD_SECONDS` later; files that
cannot be used keep the old ones, with a line in the log and a metric, as in `services.common.tls`.
With client authorities every caller needs a certificate, for open methods too: gRPC knows no
optional ones in Python.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from services.common.log import ERROR, event
from services.common.tls import (
    REJECTED,
    RELOAD_SECONDS,
    CertificateFiles,
    check_authorities,
    check_pair,
    reason,
    unusable,
)

_log = logging.getLogger(__name__)


def server_credentials(
    files: CertificateFiles,
    *,
    client_authorities: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises `StartError` if they cannot be used now."""
    source = _Source(files, client_authorities, clock)
    try:
        first = source.read()
    except (OSError, ValueError) as error:
        raise unusable(files, error) from error
    return grpc.dynamic_ssl_server_credentials(
        first,
        source.changed,  # type: ignore[arg-type]  # None is "no change", which the types forgot
        client_authorities is not None,
    )


class _Source:
    """Called by gRPC's threads, before every handshake."""

    def __init__(
        self, files: CertificateFiles, authorities: Path | None, clock: Callable[[], float]
    ) -> None:
        self._files = files
        self._authorities = authorities
        self._clock = clock
        self._content: tuple[bytes, ...] = ()
        self._next_read = 0.0
        self._rejected = False

    def read(self) -> grpc.ServerCertificateConfiguration:
        """The files as they are; raises `OSError` or `ValueError`."""
        self._next_read = self._clock() + RELOAD_SECONDS
        self._content = self._octets()
        check_pair(self._files)
        if self._authorities is not None:
            check_authorities(self._authorities)
        certificate, key, *authorities = self._content
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], authorities[0] if authorities else None
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if the files have one, otherwise None."""
        if self._clock() < self._next_read:
            return None
        self._next_read = self._clock() + RELOAD_SECONDS
        try:
            if self._octets() == self._content:
                return None
            fresh = self.read()
        except (OSError, ValueError) as error:
            self._tell(reason(error))
            return None
        self._tell("")
        return fresh

    def _octets(self) -> tuple[bytes, ...]:
        paths = (self._files.certificate, self._files.key, self._authorities)
        return tuple(path.read_bytes() for path in paths if path is not None)

    def _tell(self, why: str) -> None:
        name = str(self._files.certificate)
        REJECTED.labels(name).set(1 if why else 0)
        if why and not self._rejected:
            event(_log, ERROR, "certificate rejected, the old one stays", file=name, reason=why)
        self._rejected = bool(why)
