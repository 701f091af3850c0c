"""Whether a certificate is the one that TLSA records name: RFC 6698 §2.1, RFC 7671 §5, RFC 7672 §3.

Usages 2 (DANE-TA) and 3 (DANE-EE), selectors 0 and 1, matching types 0, 1 and 2. With DANE-EE the
key is all that counts: neither names nor dates (RFC 7671 §5.1). With DANE-TA the chain must lead to
the named authority, be valid today, and be for one of the reference names (RFC 7672 §3.2).

Guarantees: pure; whatever the other side shows, the outcome is a `Mismatch` or None. Refuses:
usages 0 and 1, which mean nothing for mail (RFC 7672 §3.1.3), and what no association can be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from services.common.dns import TlsaRecord
from services.delivery.tls.report import TlsResult

DANE_TA: Final = 2
DANE_EE: Final = 3
_WHOLE, _KEY = 0, 1
_FULL, _SHA256, _SHA512 = 0, 1, 2
_DIGEST_OCTETS: Final = {_SHA256: 32, _SHA512: 64}
_MAX_CHAIN: Final = 10
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UNREADABLE: Final = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a certificate will not do."""

    result: TlsResult
    text: str


def usable(records: Sequence[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """The records that can be matched, without weak digests where there are strong ones of the same
    kind (RFC 7671 §9)."""
    good = [record for record in dict.fromkeys(records) if _is_usable(record)]
    strong = {(r.usage, r.selector) for r in good if r.matching_type == _SHA512}
    return tuple(
        record
        for record in good
        if record.matching_type != _SHA256 or (record.usage, record.selector) not in strong
    )


def _is_usable(record: TlsaRecord) -> bool:
    if record.usage not in (DANE_TA, DANE_EE) or record.selector not in (_WHOLE, _KEY):
        return False
    if record.matching_type == _FULL:
        return bool(record.association)
    return len(record.association) == _DIGEST_OCTETS.get(record.matching_type)


def judge(
    chain: Sequence[bytes], records: Sequence[TlsaRecord], *, names: Sequence[str], now: datetime
) -> Mismatch | None:
    """Why a chain (DER, the host's own certificate first) is not what the records name; None if it
    is. `names` are the reference names for DANE-TA."""
    if not chain:
        return Mismatch(TlsResult.CERTIFICATE_NOT_TRUSTED, "no certificate was shown")
    leaf, *others = chain[:_MAX_CHAIN]
    if any(r.usage == DANE_EE and _matches(r, leaf) for r in records):
        return None
    authorities = _authorities([r for r in records if r.usage == DANE_TA], others)
    if not authorities:
        text = "the certificate is none of those that the TLSA records name"
        return Mismatch(TlsResult.CERTIFICATE_NOT_TRUSTED, text)
    return _verify(leaf, others, authorities, names=names, now=now)


def _authorities(records: Sequence[TlsaRecord], shown: Sequence[bytes]) -> list[bytes]:
    """The certificates that the records name as authorities: shown, or in the DNS as a whole."""
    found = [der for der in shown if any(_matches(record, der) for record in records)]
    whole = [r.association for r in records if (r.selector, r.matching_type) == (_WHOLE, _FULL)]
    return list(dict.fromkeys(found + whole))


def _matches(record: TlsaRecord, certificate: bytes) -> bool:
    try:
        selected = certificate if record.selector == _WHOLE else public_key_info(certificate)
    except ValueError:
        return False
    match record.matching_type:
        case 1:
            selected = hashlib.sha256(selected).digest()
        case 2:
            selected = hashlib.sha512(selected).digest()
    return selected == record.association


# --- DANE-TA ------------------------------------------------------------------------------------


def _verify(
    leaf: bytes,
    others: Sequence[bytes],
    authorities: Sequence[bytes],
    *,
    names: Sequence[str],
    now: datetime,
) -> Mismatch | None:
    try:
        own = x509.load_der_x509_certificate(leaf)
        between = [x509.load_der_x509_certificate(der) for der in others]
        anchors = [x509.load_der_x509_certificate(der) for der in authorities]
        if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
            return Mismatch(TlsResult.CERTIFICATE_EXPIRED, "the certificate is not valid today")
        if not _is_for(own, names):
            text = f"the certificate is for none of {', '.join(names)}"
            return Mismatch(TlsResult.CERTIFICATE_HOST_MISMATCH, text)
        builder = PolicyBuilder().store(Store(anchors)).time(now).max_chain_depth(_MAX_CHAIN)
        builder = builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=_HOST)
        # Names are compared above, against several; so there is no subject to give here.
        builder.build_client_verifier().verify(own, between)
    except VerificationError:
        text = "the certificate does not lead to the authority that the TLSA records name"
        return Mismatch(TlsResult.CERTIFICATE_NOT_TRUSTED, text)
    except _UNREADABLE:
        text = "the certificate or one above it cannot be read"
        return Mismatch(TlsResult.CERTIFICATE_NOT_TRUSTED, text)
    return None


def _is_for(certificate: x509.Certificate, names: Sequence[str]) -> bool:
    """Whether one of its DNS names is one of `names`; `*` stands for the first label."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    shown = {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
    return any(name in shown or f"*.{name.partition('.')[2]}" in shown for name in names)


def _must_be_authority(
    _policy: Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints
) -> None:
    if not extension.ca:
        raise ValueError("not an authority")


# The authority is one that the domain chose, not one of the web's, whose rules for extensions it
# need not follow. What makes a chain a chain is required of it all the same.
_AUTHORITY: Final = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, _must_be_authority
)
_HOST: Final = ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)


# --- DER ----------------------------------------------------------------------------------------


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, octet for octet (RFC 5280 §4.1).

    Read from its place instead of made anew from the key: a digest is of these very octets, and the
    key may be of a kind that we do not know. Raises ValueError.
    """
    _, body, _ = _element(certificate, _SEQUENCE)
    _, fields, _ = _element(body, _SEQUENCE)
    if fields[:1] == bytes([_VERSION]):
        _, _, fields = _element(fields, _VERSION)
    # serialNumber, signature, issuer, validity, subject
    for _ in range(5):
        _, _, fields = _element(fields)
    whole, _, _ = _element(fields, _SEQUENCE)
    return whole


def _element(data: bytes, tag: int | None = None) -> tuple[bytes, bytes, bytes]:
    """The first element as a whole, its content, and what follows it. Raises ValueError."""
    if len(data) < 2 or (tag is not None and data[0] != tag):
        raise ValueError("not DER of a certificate")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start > 6 or start + length > len(data):
        raise ValueError("not DER of a certificate")
    return data[: start + length], data[start : start + length], data[start + length :]
