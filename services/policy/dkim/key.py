"""What a key record says (RFC 6376 §3.6.1, RFC 8301, RFC 8463), and the arithmetic with it.

The size of a key is looked at before anything is computed with it: a modulus or an exponent chosen
by a stranger can cost seconds. Keys that were read are remembered by their octets.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.policy.dkim.signature import ED25519_SHA256, BadSignature, Signature
from services.policy.dkim.syntax import TagError, parse_tags, without_white_space

MIN_BITS = 1024
"""RFC 8301 §3.2: a verifier must not take less."""

MAX_BITS = 4096
"""RFC 8301 §3.2 asks for as much; more costs the verifier and is used by nobody."""

MAX_EXPONENT_BITS = 32
"""Everybody uses 65537."""

MAX_RECORD_OCTETS = 4096
_ED25519_OCTETS = 32
_PREHASHED = Prehashed(SHA256())

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Key:
    """A published key."""

    public: PublicKey
    bits: int
    testing: bool
    """`t=y`: a failure is no worse than no signature."""
    strict: bool
    """`t=s`: `i=` must be in the very domain of `d=`."""


# Reading a record takes half as long as verifying with the key in it.
@lru_cache(maxsize=1024)
def parse_key(record: bytes) -> Key:
    """What a record says. Raises `BadSignature` with the result for whatever it would verify."""
    if len(record) > MAX_RECORD_OCTETS:
        raise BadSignature("permerror", "the key record is too long")
    try:
        tags = parse_tags(record)
    except TagError as error:
        raise BadSignature("permerror", f"the key record is {error}") from error
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise BadSignature("permerror", "the key record is of another version")
    _check_uses(tags)
    if "p" not in tags:
        raise BadSignature("permerror", "the key record has no p=")
    if not tags["p"]:
        raise BadSignature("permerror", "the key was revoked")
    flags = without_white_space(tags.get("t", "")).split(":")
    public, bits = _public_key(tags.get("k", "rsa").lower(), without_white_space(tags["p"]))
    return Key(public, bits, testing="y" in flags, strict="s" in flags)


def verifies(key: Key, signature: Signature, digest: bytes) -> bool:
    """Whether a signature over this SHA-256 digest was made with the key. Raises `BadSignature`
    for a key that is not for such a signature."""
    if key.strict and signature.identity_domain != signature.domain:
        raise BadSignature("permerror", "the key is not for subdomains, and i= is in one")
    return verifies_octets(key, signature.signature, digest, signature.algorithm)


def verifies_octets(key: Key, signature: bytes, digest: bytes, algorithm: str) -> bool:
    """Whether these octets are the key's signature over the digest. Raises `BadSignature`."""
    is_ed25519 = isinstance(key.public, ed25519.Ed25519PublicKey)
    if is_ed25519 != (algorithm == ED25519_SHA256):
        raise BadSignature("permerror", "the key is of another algorithm than the signature")
    try:
        if isinstance(key.public, ed25519.Ed25519PublicKey):
            # RFC 8463 §3: the digest itself is the message.
            key.public.verify(signature, digest)
        else:
            key.public.verify(signature, digest, padding.PKCS1v15(), _PREHASHED)
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_uses(tags: dict[str, str]) -> None:
    services = without_white_space(tags.get("s", "*")).lower().split(":")
    if not {"*", "email"}.intersection(services):
        raise BadSignature("permerror", "the key is not for mail")
    hashes = without_white_space(tags.get("h", "sha256")).lower().split(":")
    if "sha256" not in hashes:
        raise BadSignature("permerror", "the key is not for sha256")


@lru_cache(maxsize=1024)
def _public_key(kind: str, text: str) -> tuple[PublicKey, int]:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature("permerror", "p= is not base64") from error
    if kind == "ed25519":
        return _ed25519_key(octets), 256
    if kind != "rsa":
        raise BadSignature("permerror", "the key is of an unknown kind")
    public = _rsa_key(octets)
    bits = public.key_size
    if not MIN_BITS <= bits <= MAX_BITS:
        raise BadSignature("policy", f"the key has {bits} bits, not {MIN_BITS} to {MAX_BITS}")
    if public.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        raise BadSignature("policy", f"the key's exponent has more than {MAX_EXPONENT_BITS} bits")
    return public, bits


def _ed25519_key(octets: bytes) -> ed25519.Ed25519PublicKey:
    if len(octets) != _ED25519_OCTETS:
        raise BadSignature("permerror", "an Ed25519 key has 32 octets")
    return ed25519.Ed25519PublicKey.from_public_bytes(octets)


def _rsa_key(octets: bytes) -> rsa.RSAPublicKey:
    """A SubjectPublicKeyInfo, or the bare RSAPublicKey that RFC 6376 §3.6.1 names."""
    try:
        public = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadSignature("permerror", "p= is not a key") from error
    if not isinstance(public, rsa.RSAPublicKey):
        raise BadSignature("permerror", "p= is not an RSA key")
    return public
