"""The fields of requests of the keys API, checked. Every function raises `RpcFailure`.

Letter case and U-labels in domains are accepted and made canonical; selectors are lower-cased.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from services.common.mail.domain import AddressError, parse_domain
from services.common.rpc.errors import invalid_argument
from services.keys.key import (
    DEFAULT_RSA_BITS,
    ED25519_BITS,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    Key,
    KeyDataError,
    KeyType,
    parse_request_id,
)
from services.keys.selector import SelectorError, parse_selector

MAX_EXPIRY: Final = timedelta(days=36_500)

Place = tuple[str, str, str]
"""Where a key stands in the order of `Keyring.present`."""


def domain_of(text: str) -> str:
    """The signing domain, canonical."""
    try:
        return parse_domain(text)
    except AddressError as error:
        raise invalid_argument(f"domain: {error.reason}", reason="INVALID_DOMAIN") from error


def selector_of(text: str) -> str:
    """The selector, canonical."""
    try:
        return parse_selector(text)
    except SelectorError as error:
        raise invalid_argument(f"selector: {error}", reason="INVALID_SELECTOR") from error


def key_type_of(text: str) -> KeyType:
    """The key type; RSA if none is named."""
    try:
        return KeyType(text.lower() or KeyType.RSA)
    except ValueError as error:
        types = " or ".join(KeyType)
        raise invalid_argument(f"key_type is {types}", reason="INVALID_KEY_TYPE") from error


def bits_of(key_type: KeyType, bits: int) -> int:
    """The size; the usual one for 0."""
    if key_type is KeyType.ED25519:
        return ED25519_BITS
    if bits and not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        text = f"bits: an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS}"
        raise invalid_argument(text, reason="INVALID_BITS")
    return bits or DEFAULT_RSA_BITS


def expiry_of(duration: Duration) -> timedelta:
    """How long until the key expires; 0 for never."""
    # Not by ToTimedelta, which raises OverflowError for what is too long.
    expiry = timedelta(seconds=min(max(duration.seconds, -1), 10**10))
    if not timedelta(0) <= expiry <= MAX_EXPIRY:
        text = f"expiry is from 0 (never) to {MAX_EXPIRY.days} days"
        raise invalid_argument(text, reason="INVALID_EXPIRY")
    return expiry


def request_id_of(text: str) -> str:
    """The id of the request; may be blank."""
    try:
        return parse_request_id(text)
    except KeyDataError as error:
        raise invalid_argument(str(error), reason="INVALID_REQUEST_ID") from error


def place_of(key: Key) -> Place:
    """Where a key stands in the order of `Keyring.present`."""
    return key.domain, key.created.isoformat(), key.selector


def page_token_after(key: Key) -> str:
    """The token that goes on after this key."""
    return base64.urlsafe_b64encode(json.dumps(place_of(key)).encode()).decode("ascii")


def place_after(token: str) -> Place:
    """Where a page begins; before everything for a blank token."""
    if not token:
        return "", "", ""
    try:
        domain, created, selector = json.loads(base64.urlsafe_b64decode(token))
        return str(domain), str(created), str(selector)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _not_our_token() from error


def domain_token(domain: str) -> str:
    """The token that goes on after this domain."""
    return base64.urlsafe_b64encode(domain.encode()).decode("ascii")


def domain_after(token: str) -> str:
    """The domain after which a page begins; blank for a blank token."""
    try:
        return base64.b64decode(token, b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _not_our_token() from error


def _not_our_token() -> Exception:
    text = "page_token is not one that this method gave"
    return invalid_argument(text, reason="INVALID_PAGE_TOKEN")
