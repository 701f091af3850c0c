"""Private keys: what can be read, and that nothing of one ever shows."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.keys.key import KeyType
from services.keys.private_key import PrivateKeyError, from_pem, generate

_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
_PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
_PLAIN = serialization.NoEncryption()


def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@pytest.mark.parametrize(
    ("key_type", "bits", "algorithm", "public_octets"),
    [
        (KeyType.RSA, 1024, "rsa-sha256", 162),
        (KeyType.RSA, 2048, "rsa-sha256", 294),
        (KeyType.ED25519, 256, "ed25519-sha256", 32),
    ],
)
def test_a_new_key_survives_the_way_through_a_store(
    key_type: KeyType, bits: int, algorithm: str, public_octets: int
) -> None:
    made = generate(key_type, bits=bits)
    read = from_pem(made.pem())
    assert (read.key_type, read.bits, read.algorithm) == (key_type, bits, algorithm)
    assert read.public == made.public
    assert len(base64.b64decode(read.public)) == public_octets


@pytest.mark.parametrize("container", [_PKCS1, _PKCS8], ids=["PKCS #1", "PKCS #8"])
def test_keys_made_elsewhere_are_read(container: serialization.PrivateFormat) -> None:
    pem = _rsa(1024).private_bytes(_PEM, container, _PLAIN)
    assert from_pem(pem).bits == 1024


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (lambda: b"", "not a private key"),
        (lambda: b"hello", "not a private key"),
        (lambda: b"\xff" * 100, "not a private key"),
        (
            lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "not a private key",
        ),
        (
            lambda: (
                _rsa(1024)
                .public_key()
                .public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            ),
            "not a private key",
        ),
        (
            lambda: _rsa(1024).private_bytes(
                _PEM, _PKCS8, serialization.BestAvailableEncryption(b"secret")
            ),
            "encrypted",
        ),
        (
            lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(_PEM, _PKCS8, _PLAIN),
            "RSA and Ed25519",
        ),
        (lambda: b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 20_000, "at most"),
    ],
    ids=[
        "nothing",
        "text",
        "octets",
        "an empty key",
        "a public key",
        "encrypted",
        "elliptic curve",
        "too long",
    ],
)
def test_what_is_no_key_is_refused(pem: Callable[[], bytes], why: str) -> None:
    with pytest.raises(PrivateKeyError, match=why) as caught:
        from_pem(pem())
    # A cause could quote what it could not read.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("prime", "exponent", "why"),
    [
        # A well-known prime, and with one of 512 bits a modulus of 767.
        (2**255 - 19, 65537, "1024 to 4096 bits"),
        (None, 2**33 + 17, "exponent is too large"),
    ],
)
def test_a_key_that_verifiers_refuse_is_refused_here(
    prime: int | None, exponent: int, why: str
) -> None:
    numbers = _rsa(1024).private_numbers()
    pem = _from_primes(numbers.p, prime or numbers.q, exponent).private_bytes(_PEM, _PKCS8, _PLAIN)
    with pytest.raises(PrivateKeyError, match=why):
        from_pem(pem)


def _from_primes(p: int, q: int, exponent: int) -> rsa.RSAPrivateKey:
    d = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    )
    return numbers.private_key()


@pytest.mark.parametrize("key_type", KeyType)
def test_nothing_private_shows(key_type: KeyType) -> None:
    key = generate(key_type, bits=1024)
    private = key.pem().decode().splitlines()[1]
    for text in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        assert private not in text
        assert "PRIVATE KEY" not in text
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leave(key)  # type: ignore[operator]
