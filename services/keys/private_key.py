"""Private keys: made, read from PEM, used for signatures. The only module that touches one.

RFC 6376 §3.3 (RSA, PKCS #1 v1.5 over SHA-256), RFC 8463 §3 (Ed25519 over the SHA-256 digest), RFC
8301 §3.2 (sizes). The arithmetic is OpenSSL's, through `cryptography`, which is twenty times faster
than dkimpy's own.

Guarantees: neither `repr`, `str`, an exception nor pickling shows anything private; `pem()` is for
the key stores alone.
"""

from __future__ import annotations

import base64
from typing import Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from services.keys.key import ED25519_BITS, MAX_RSA_BITS, MIN_RSA_BITS, KeyType

MAX_PEM_OCTETS: Final = 16 * 1024
"""An RSA key of 4096 bits takes 3,300."""
_PUBLIC_EXPONENT: Final = 65537
_MAX_PUBLIC_EXPONENT: Final = 2**32
"""Verifiers spend their time in proportion to it; many refuse a larger one."""

_PADDING: Final = padding.PKCS1v15()
_DIGEST: Final = Prehashed(hashes.SHA256())


class PrivateKeyError(ValueError):
    """This is no private key that can sign; the message says why, and nothing of what it held."""


class PrivateKey:
    """A private key in the form that signs."""

    __slots__ = ("_key", "bits", "key_type", "public")

    def __init__(self, key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> None:
        """Raises `PrivateKeyError` for a size or an exponent that verifiers would not take."""
        self._key = key
        if isinstance(key, rsa.RSAPrivateKey):
            self.key_type = KeyType.RSA
            self.bits = key.key_size
            if not MIN_RSA_BITS <= self.bits <= MAX_RSA_BITS:
                raise PrivateKeyError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits here")
            if key.public_key().public_numbers().e > _MAX_PUBLIC_EXPONENT:
                raise PrivateKeyError("the public exponent is too large for verifiers")
        else:
            self.key_type = KeyType.ED25519
            self.bits = ED25519_BITS
        self.public = _public(key)

    @property
    def algorithm(self) -> str:
        """What the `a=` tag says."""
        return f"{self.key_type}-sha256"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest of 32 octets."""
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(digest)
        return self._key.sign(digest, _PADDING, _DIGEST)

    def pem(self) -> bytes:
        """PKCS #8, not encrypted. For a store, which keeps it where nobody else can read."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"PrivateKey({self.key_type}, {self.bits} bits)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled")


def generate(key_type: KeyType, *, bits: int) -> PrivateKey:
    """A new key; `bits` is for RSA. Takes up to some seconds, without holding the interpreter."""
    if key_type is KeyType.ED25519:
        return PrivateKey(Ed25519PrivateKey.generate())
    return PrivateKey(rsa.generate_private_key(_PUBLIC_EXPONENT, bits))


def from_pem(pem: bytes) -> PrivateKey:
    """The key in a PEM block (PKCS #8 or PKCS #1, not encrypted). Raises `PrivateKeyError`."""
    if len(pem) > MAX_PEM_OCTETS:
        raise PrivateKeyError(f"a private key in PEM form has at most {MAX_PEM_OCTETS} octets")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise PrivateKeyError("the private key is encrypted; decrypt it first") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause: it may quote what it could not read.
        raise PrivateKeyError("this is not a private key in PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey | Ed25519PrivateKey):
        raise PrivateKeyError("DKIM knows RSA and Ed25519 keys only")
    return PrivateKey(key)


def _public(key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> str:
    """The value of `p=`: SubjectPublicKeyInfo for RSA (RFC 6376 §3.6.1), the bare 32 octets for
    Ed25519 (RFC 8463 §4)."""
    if isinstance(key, Ed25519PrivateKey):
        octets = key.public_key().public_bytes_raw()
    else:
        octets = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return base64.b64encode(octets).decode("ascii")
