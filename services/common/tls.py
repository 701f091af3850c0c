"""Server TLS: contexts from certificate files that are exchanged while connections come in.

`ServerTls.context` is one `ssl.SSLContext` for the life of the process, for STARTTLS and implicit
TLS alike; each handshake is given the newest certificate that fits the name the client asks for
(SNI, RFC 6066 §3), the first one if it asks for none or an unknown one. Files are compared by
content every `RELOAD_SECONDS`, so an atomic swap of symlinks is noticed and a rewrite of the same
content is not. Other files may take their place (`exchange`) at any time.

Guarantees: files that are garbage, or a key that does not belong to its certificate, keep the old
pair, with a line in the log and a metric, and so do files that are not there yet; connections that
exist are never touched. TLS below `minimum` is refused, renegotiation too. Private keys are never
logged and never leave OpenSSL.
"""

import asyncio
import hashlib
import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import Gauge

from services.common.log import ERROR, INFO, WARNING, event
from services.common.start import StartError

RELOAD_SECONDS = 5.0
SELF_SIGNED_DAYS = 3650  # nobody trusts it anyway, so there is nothing to gain from a short life

EXPIRY = Gauge(
    "gatepost_tls_certificate_expiry_timestamp_seconds",
    "When the certificate in use expires, in seconds since 1970.",
    ["certificate"],
)
REJECTED = Gauge(
    "gatepost_tls_certificate_rejected",
    "1 while the files hold something that cannot be used and the older certificate stays in use.",
    ["certificate"],
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A chain, leaf first, and its unencrypted private key; both PEM, may be the same file."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    """A loaded certificate and key."""

    context: ssl.SSLContext
    names: frozenset[str]  # DNS names, lower case, perhaps with a wildcard
    expires: datetime
    digest: bytes


class ServerTls:
    """The server's side of TLS. `load()` before use; `watch()` as a long-lived task."""

    def __init__(
        self,
        files: Sequence[CertificateFiles],
        *,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    ) -> None:
        """`files`: at least one pair; the first is for clients that ask for no known name."""
        self._files = tuple(files)
        self._wanted = self._files
        self._minimum = minimum
        self._loaded: dict[CertificateFiles, _Pair] = {}
        self._tried: dict[CertificateFiles, bytes] = {}
        self._refused: dict[CertificateFiles, str] = {}
        self._context: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context for listeners; the same object for ever."""
        if self._context is None:
            raise RuntimeError("the certificates are not loaded")
        return self._context

    def load(self) -> None:
        """Read all files; raises `StartError` that names the file and what is wrong with it."""
        for files in self._files:
            try:
                pair = _load(files, self._minimum)
            except (OSError, ValueError) as error:
                raise unusable(files, error) from error
            self._loaded[files] = pair
            self._tried[files] = pair.digest
            _tell(files, pair)
        self._context = _context(self._files[0], self._minimum)
        self._context.sni_callback = self._choose

    async def watch(self) -> None:
        """Reload what changes, until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            self.reload()

    def exchange(self, files: Sequence[CertificateFiles]) -> None:
        """Use these files instead, at least one pair, as soon as all of them can be used."""
        self._wanted = tuple(files)
        self.reload()

    def reload(self) -> None:
        """Put changed files into use, where they can be used."""
        for files in dict.fromkeys((*self._files, *self._wanted)):
            try:
                digest = _digest(files)
                if self._tried.get(files) == digest:
                    if files in self._loaded and self._loaded[files].digest == digest:
                        self._accept(files)
                    continue
                self._tried[files] = digest
                pair = _load(files, self._minimum)
            except (OSError, ValueError) as error:
                self._reject(files, reason(error))
            else:
                self._loaded[files] = pair
                self._accept(files)
                if files in self._files:
                    _tell(files, pair)
        if self._loaded.keys() >= set(self._wanted):
            self._put_in_place()

    def _put_in_place(self) -> None:
        for files in self._wanted:
            if files not in self._files:
                _tell(files, self._loaded[files])
        self._files = self._wanted
        used = {files.certificate for files in self._files}
        for files in self._tried.keys() | self._refused.keys():
            if files not in self._files:
                for seen in (self._loaded, self._tried, self._refused):
                    seen.pop(files, None)
                if files.certificate not in used:
                    _tell_no_more(files)

    def _accept(self, files: CertificateFiles) -> None:
        if self._refused.pop(files, ""):
            REJECTED.labels(str(files.certificate)).set(0)

    def _reject(self, files: CertificateFiles, why: str) -> None:
        name = str(files.certificate)
        REJECTED.labels(name).set(1)
        if self._refused.get(files) != why:
            event(_log, ERROR, "certificate rejected, the old one stays", file=name, reason=why)
        self._refused[files] = why

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        """Called by OpenSSL in every handshake, with or without a name."""
        connection.context = self._pair(name).context

    def _pair(self, name: str | None) -> _Pair:
        if name is not None and len(self._files) > 1:
            exact = name.lower()
            wild = "*." + exact.partition(".")[2]
            for wanted in (exact, wild):
                for files in self._files:
                    if wanted in self._loaded[files].names:
                        return self._loaded[files]
        return self._loaded[self._files[0]]


def unusable(files: CertificateFiles, error: OSError | ValueError) -> StartError:
    """The one-line error for files that cannot be used at the start."""
    return StartError(f"TLS certificate {files.certificate}: {reason(error)}")


def reason(error: OSError | ValueError) -> str:
    """What is wrong, in words; the file where it is a file that is missing."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def check_pair(files: CertificateFiles) -> None:
    """Raise `OSError` or `ValueError` with a text for operators unless the pair can be used.

    For TLS that is not done by this module; logs and measures the certificate as if it were.
    """
    _tell(files, _load(files, ssl.TLSVersion.TLSv1_2))


def check_authorities(path: Path) -> None:
    """Raise `OSError` or `ValueError` unless the file holds certificates."""
    x509.load_pem_x509_certificates(path.read_bytes())


def _digest(files: CertificateFiles) -> bytes:
    content = files.certificate.read_bytes(), files.key.read_bytes()
    return b"".join(hashlib.sha256(part).digest() for part in content)


def _load(files: CertificateFiles, minimum: ssl.TLSVersion) -> _Pair:
    """Raises `OSError` or `ValueError` with a text for operators."""
    # The digest first: if the files change in between, the next look finds another one.
    digest = _digest(files)
    context = _context(files, minimum)
    leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    lower = frozenset(name.lower() for name in names)
    return _Pair(context, lower, leaf.not_valid_after_utc, digest)


def _context(files: CertificateFiles, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # With no password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        raise ValueError(f"not a certificate chain with its key: {error.reason}") from error
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted; an unencrypted one is needed")


def _tell(files: CertificateFiles, pair: _Pair) -> None:
    name = str(files.certificate)
    EXPIRY.labels(name).set(pair.expires.timestamp())
    REJECTED.labels(name).set(0)
    expires = pair.expires.isoformat()
    if pair.expires <= datetime.now(UTC):
        event(_log, WARNING, "certificate has expired", file=name, expires=expires)
    else:
        names = ", ".join(sorted(pair.names))
        event(_log, INFO, "certificate in use", file=name, names=names, expires=expires)


def _tell_no_more(files: CertificateFiles) -> None:
    """The files are none of ours any more, so nobody need be alarmed by them."""
    name = str(files.certificate)
    EXPIRY.remove(name)
    REJECTED.remove(name)


def ensure_self_signed(directory: Path, hostname: str) -> CertificateFiles:
    """`tls.crt` and `tls.key` (0600) in `directory`, made if they are missing.

    ECDSA P-256, for `hostname`, localhost and the loopback addresses. Raises `StartError`.
    """
    files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
    present = [path for path in (files.certificate, files.key) if path.exists()]
    if len(present) == 1:
        raise StartError(f"{present[0]} exists without its other half; remove it or complete it")
    if not present:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create_self_signed(files, hostname)
        except OSError as error:
            raise StartError(f"cannot create {error.filename}: {error.strerror}") from error
    return files


def _create_self_signed(files: CertificateFiles, hostname: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has at most 64 characters (RFC 5280 appendix A.1); the real name is below.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.now(UTC)
    names = [x509.DNSName(name) for name in dict.fromkeys((hostname, "localhost"))]
    addresses = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.IPAddress(IPv6Address("::1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # for clients whose clocks are behind
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # The key first: a crash in between leaves half a pair, which the next start names.
    _create(files.key, pem, mode=0o600)
    _create(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _create(path: Path, data: bytes, *, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
