"""Seals mails for tests as forwarders do (RFC 8617), with every tag free to be wrong."""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.dkim_signer import DOMAIN, SELECTOR, canonical_body, canonical_field

_KINDS = ("arc-authentication-results", "arc-message-signature", "arc-seal")


def seal(
    message: str,
    key: rsa.RSAPrivateKey,
    *,
    saw: str = "spf=pass; dkim=pass; dmarc=pass",
    domain: str = DOMAIN,
    cv: str = "",
    instance: int = 0,
    seal_tags: str = "",
    signature_tags: str = "",
    signature_selector: str = SELECTOR,
) -> str:
    """The message with one more ARC Set on top; lines end in LF."""
    number = instance or message.lower().count("arc-seal:") + 1
    state = cv or ("none" if number == 1 else "pass")
    results = f"ARC-Authentication-Results: i={number}; mx.{domain}; {saw}"
    header, _, body = message.partition("\n\n")
    digest = hashlib.sha256(canonical_body(body, "relaxed")).digest()
    bh = base64.b64encode(digest).decode()
    signature = (
        f"ARC-Message-Signature: i={number}; a=rsa-sha256; c=relaxed/relaxed; d={domain};"
        f" s={signature_selector}; h=from:to:subject; bh={bh};{signature_tags} b="
    )
    fields = _fields(header)
    signed = b"".join(
        canonical_field(*field, "relaxed")
        for name in ("from", "to", "subject")
        for field in [next((f for f in reversed(fields) if f[0].lower() == name), None)]
        if field is not None
    )
    signature += _sign(signed + canonical_field(*_split(signature), "relaxed")[:-2], key)
    sealed = f"ARC-Seal: i={number}; a=rsa-sha256; cv={state}; d={domain};"
    sealed += f" s={SELECTOR};{seal_tags} b="
    before = b"".join(
        canonical_field(*field, "relaxed")
        for step in range(1, number)
        for kind in _KINDS
        for field in fields
        if field[0].lower() == kind and re.search(rf"\bi={step};", field[1])
    )
    own = b"".join(canonical_field(*_split(each), "relaxed") for each in (results, signature))
    sealed += _sign(before + own + canonical_field(*_split(sealed), "relaxed")[:-2], key)
    return f"{sealed}\n{signature}\n{results}\n{message}"


def _sign(octets: bytes, key: rsa.RSAPrivateKey) -> str:
    return base64.b64encode(key.sign(octets, padding.PKCS1v15(), SHA256())).decode()


def _fields(header: str) -> list[tuple[str, str]]:
    return [_split(field) for field in re.split(r"\n(?!\s)", header)]


def _split(field: str) -> tuple[str, str]:
    name, _, value = field.partition(":")
    return name, value
