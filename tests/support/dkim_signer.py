"""Signs mails for tests, with every tag free to be wrong.

The hashing is written here anew and small (RFC 6376 §3.4 and §3.7), so that a test does not ask the
code under test what is right.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

DOMAIN = "example.org"
SELECTOR = "sel"
KEY_NAME = f"{SELECTOR}._domainkey.{DOMAIN}"


@cache
def rsa_key(bits: int = 1024, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """A key of this size; made once."""
    return rsa.generate_private_key(exponent, bits)


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    """A key; made once."""
    return ed25519.Ed25519PrivateKey.generate()


def record(key: PrivateKey, **tags: str) -> str:
    """The TXT record of a key, with tags added or replaced."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        kind, octets = "ed25519", public.public_bytes_raw()
    else:
        kind = "rsa"
        octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = {"v": "DKIM1", "k": kind, "p": base64.b64encode(octets).decode(), **tags}
    return "; ".join(f"{name}={value}" for name, value in found.items())


def sign(
    message: str,
    key: PrivateKey,
    *,
    canonicalization: str = "relaxed/relaxed",
    signed: Sequence[str] = ("from", "to", "subject"),
    length: int | None = None,
    **tags: str,
) -> str:
    """The message with a signature on top; lines end in LF. A tag given as "" is left out."""
    header, _, body = message.partition("\n\n")
    header_kind, _, body_kind = canonicalization.partition("/")
    octets = canonical_body(body, body_kind)[:length]
    found = {
        "v": "1",
        "a": "ed25519-sha256" if isinstance(key, ed25519.Ed25519PrivateKey) else "rsa-sha256",
        "c": canonicalization,
        "d": DOMAIN,
        "s": SELECTOR,
        "h": ":".join(signed),
        "bh": base64.b64encode(hashlib.sha256(octets).digest()).decode(),
        **({} if length is None else {"l": str(length)}),
        **tags,
    }
    value = " " + "; ".join(f"{n}={v}" for n, v in found.items() if v) + "; b="
    hashed = (
        _header(header, signed, header_kind)
        + canonical_field("DKIM-Signature", value, header_kind)[:-2]
    )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        made = key.sign(hashlib.sha256(hashed).digest())
    else:
        made = key.sign(hashed, padding.PKCS1v15(), SHA256())
    return f"DKIM-Signature:{value}{base64.b64encode(made).decode()}\n{message}"


def _header(header: str, signed: Sequence[str], kind: str) -> bytes:
    fields = [
        (name, value)
        for name, _, value in (f.partition(":") for f in re.split(r"\n(?!\s)", header))
    ]
    octets = b""
    for wanted in signed:
        for at in range(len(fields) - 1, -1, -1):
            name, value = fields[at]
            if name.strip().lower() == wanted.strip().lower():
                octets += canonical_field(name, value, kind)
                del fields[at]
                break
    return octets


def canonical_field(name: str, value: str, kind: str) -> bytes:
    """A field as it is hashed, with its CRLF."""
    if kind == "relaxed":
        value = re.sub(r"[ \t]+", " ", value.replace("\n", "")).strip()
        name = name.strip().lower()
    return f"{name}:{value}\n".replace("\n", "\r\n").encode()


def canonical_body(body: str, kind: str) -> bytes:
    """A body as it is hashed."""
    if kind == "relaxed":
        body = "\n".join(re.sub(r"[ \t]+", " ", line).rstrip(" ") for line in body.split("\n"))
    body = body.rstrip("\n") + "\n"
    return b"" if kind == "relaxed" and body == "\n" else body.replace("\n", "\r\n").encode()
