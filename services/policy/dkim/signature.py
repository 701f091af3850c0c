"""What a DKIM-Signature field says: RFC 6376 §3.5, checked as §6.1.1 asks before any look-up.

A field that cannot be used raises `BadSignature` with the result that RFC 8601 §2.7.1 has for it:
`neutral` for a field that makes no sense, `permerror` for one that can never be verified, `policy`
for one that is sound but not good enough to count.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from services.common.mail.domain import MAX_DOMAIN_OCTETS, AddressError, parse_domain
from services.common.mail.message import HeaderField
from services.policy.dkim.syntax import TagError, parse_tags, without_white_space

MAX_SIGNED_NAMES = 1000
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]{1,76}")
_MAX_NUMBER_DIGITS = 18
_CANONICALIZATIONS = ("simple", "relaxed")

RSA_SHA256 = "rsa-sha256"
ED25519_SHA256 = "ed25519-sha256"


class BadSignature(ValueError):
    """A signature that cannot count. `result` is a word of RFC 8601."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Label:
    """What names a signature, whether or not it can be read any further."""

    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    signature: str = ""
    """The beginning of `b=` (RFC 6008)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, ready to be verified."""

    field: HeaderField
    algorithm: str
    signature: bytes
    body_hash: bytes
    domain: str
    selector: str
    signed_names: tuple[str, ...]
    relaxed_header: bool
    body_canonicalization: str
    body_length: int | None
    identity_domain: str
    """The domain of `i=`; `domain` where there is none."""
    label: Label

    @property
    def key_name(self) -> str:
        """Where the key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


def label_of(field: HeaderField) -> Label:
    """As much as can be told of a field. Never raises."""
    try:
        tags = parse_tags(field.raw.partition(b":")[2])
    except TagError:
        return Label()
    return _label(tags)


def _label(tags: dict[str, str]) -> Label:
    beginning = without_white_space(tags.get("b", ""))[:8]
    return Label(
        tags.get("d", "")[:253].lower(), tags.get("s", "")[:253], tags.get("a", "")[:40], beginning
    )


def parse_signature(field: HeaderField, *, now: int) -> Signature:
    """What a field says; `now` in seconds since 1970. Raises `BadSignature`."""
    try:
        tags = parse_tags(field.raw.partition(b":")[2])
    except TagError as error:
        raise BadSignature("neutral", str(error)) from error
    if tags.get("v") != "1":
        raise BadSignature("neutral", "v= is not 1")
    _check_times(tags, now)
    signature = parse_fields(field, tags)
    if "from" not in signature.signed_names:
        raise BadSignature("permerror", "the From field is not signed")
    return signature


def parse_fields(field: HeaderField, tags: dict[str, str]) -> Signature:
    """The signature in these tags, without what is special to DKIM. Raises `BadSignature`."""
    domain = _domain(tags)
    header, body = canonicalizations(tags.get("c", "simple/simple"))
    if "dns/txt" not in without_white_space(tags.get("q", "dns/txt")).lower().split(":"):
        raise BadSignature("neutral", "q= names no way to find the key that is known")
    return Signature(
        field=field,
        algorithm=read_algorithm(tags),
        signature=read_base64(tags, "b"),
        body_hash=read_base64(tags, "bh"),
        domain=domain,
        selector=read_name(tags, "s"),
        signed_names=signed_names(required(tags, "h")),
        relaxed_header=header == "relaxed",
        body_canonicalization=body,
        body_length=_length(tags),
        identity_domain=_identity_domain(tags, domain),
        label=_label(tags),
    )


def required(tags: dict[str, str], name: str) -> str:
    """A tag that must be there. Raises `BadSignature`."""
    value = tags.get(name, "")
    if not value:
        raise BadSignature("neutral", f"{name}= is missing")
    return value


def read_algorithm(tags: dict[str, str]) -> str:
    """The algorithm. Raises `BadSignature` for others than the two that count."""
    algorithm = required(tags, "a").lower()
    if algorithm == "rsa-sha1":
        # RFC 8301 §3.1
        raise BadSignature("policy", "rsa-sha1 does not count any more")
    if algorithm not in (RSA_SHA256, ED25519_SHA256):
        raise BadSignature("neutral", "a= is an unknown algorithm")
    return algorithm


def read_base64(tags: dict[str, str], name: str) -> bytes:
    """The octets of a tag. Raises `BadSignature`."""
    try:
        return base64.b64decode(without_white_space(required(tags, name)), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature("neutral", f"{name}= is not base64") from error


def read_name(tags: dict[str, str], name: str) -> str:
    """A domain or selector, in lower case. Raises `BadSignature`."""
    value = required(tags, name)
    if not value.isascii():
        # RFC 8616 §5: U-labels, in mail with UTF-8 header fields.
        try:
            value = parse_domain(value)
        except AddressError as error:
            raise BadSignature("neutral", f"{name}= is not a name") from error
    if len(value) > MAX_DOMAIN_OCTETS or not all(map(_LABEL.fullmatch, value.split("."))):
        raise BadSignature("neutral", f"{name}= is not a name")
    return value.lower()


def canonicalizations(value: str) -> tuple[str, str]:
    """Header and body canonicalisation of `c=`. Raises `BadSignature`."""
    header, _, body = without_white_space(value).lower().partition("/")
    body = body or "simple"
    if header not in _CANONICALIZATIONS or body not in _CANONICALIZATIONS:
        raise BadSignature("neutral", "c= is an unknown canonicalisation")
    return header, body


def signed_names(value: str) -> tuple[str, ...]:
    """The names in `h=`, in lower case. Raises `BadSignature`."""
    names = tuple(without_white_space(value).lower().split(":"))
    if len(names) > MAX_SIGNED_NAMES or not all(names):
        raise BadSignature("neutral", "h= is not a list of field names")
    return names


def _domain(tags: dict[str, str]) -> str:
    domain = read_name(tags, "d")
    if "." not in domain:
        raise BadSignature("neutral", "d= is a top-level domain")
    return domain


def _identity_domain(tags: dict[str, str], domain: str) -> str:
    """RFC 6376 §6.1.1: `i=` lies in the domain of `d=`."""
    identity = tags.get("i")
    if identity is None:
        return domain
    found = without_white_space(identity).rpartition("@")[2].lower()
    if found != domain and not found.endswith("." + domain):
        raise BadSignature("permerror", "i= is not within d=")
    return found


def _length(tags: dict[str, str]) -> int | None:
    if "l" not in tags:
        return None
    return _number(tags, "l")


def _number(tags: dict[str, str], name: str) -> int:
    """Anything beyond what can be is as good as the largest that can."""
    value = tags[name]
    if not _NUMBER.fullmatch(value):
        raise BadSignature("neutral", f"{name}= is not a number")
    return int(value) if len(value) <= _MAX_NUMBER_DIGITS else 10**_MAX_NUMBER_DIGITS


def _check_times(tags: dict[str, str], now: int) -> None:
    made = _number(tags, "t") if "t" in tags else None
    if "x" not in tags:
        return
    expires = _number(tags, "x")
    if made is not None and expires <= made:
        raise BadSignature("neutral", "x= is not after t=")
    if expires < now:
        raise BadSignature("permerror", "the signature has expired")
