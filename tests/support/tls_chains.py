"""Certificates for tests: chains of any shape, and TLSA records that name them.

root = Issued.root("root")
leaf = root.issue("mx.test")
context = leaf.server_context(root)
record = tlsa(3, 1, 1, leaf)          # "3 1 1 <hex>" for a zone
"""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str) -> Self:
        """An authority that certifies itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_certificate(_name(name), key, _name(name), key, [], ca=True), key)

    def authority(self, name: str) -> Issued:
        """An authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(_name(name), key, self.certificate.subject, self.key, [], ca=True)
        return Issued(signed, key)

    def issue(
        self, *names: str, expired: bool = False, early: bool = False, ca: bool = False
    ) -> Issued:
        """A certificate for hosts of these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        shift = -30 * _DAY if expired else 30 * _DAY if early else timedelta(0)
        signed = _certificate(
            _name("host"),
            key,
            self.certificate.subject,
            self.key,
            names,
            ca=ca,
            shift=shift,
        )
        return Issued(signed, key)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self, *above: Issued) -> ssl.SSLContext:
        """A server that shows this certificate, and those above it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "chain.pem"
            file.write_bytes(key + self.pem + b"".join(each.pem for each in above))
            context.load_cert_chain(file)
        return context


def tlsa(usage: int, selector: int, matching: int, issued: Issued) -> str:
    """A TLSA record that names a certificate, in zone-file form."""
    selected = issued.der
    if selector == 1:
        selected = issued.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    if matching:
        selected = {1: hashlib.sha256, 2: hashlib.sha512}[matching](selected).digest()
    return f"{usage} {selector} {matching} {selected.hex()}"


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    *,
    ca: bool,
    shift: timedelta = timedelta(0),
) -> x509.Certificate:
    now = datetime.now(UTC) + shift
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
