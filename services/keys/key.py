"""A DKIM key without its private part, as a value, and the text form that stores keep.

Times are UTC with whole seconds. The text form is a flat mapping of strings, which fits a Secret's
annotations as well as a file; reading it back checks everything, because people edit both by hand.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from services.common.mail.domain import AddressError, parse_domain
from services.keys.selector import SelectorError, parse_selector
from services.keys.state import KeyState, Step, after

MIN_RSA_BITS: Final = 1024
"""RFC 8301 §3.2: signers must not use fewer; verifiers must not accept fewer."""
MAX_RSA_BITS: Final = 4096
"""What verifiers must be able to validate (RFC 8301 §3.2)."""
DEFAULT_RSA_BITS: Final = 2048
ED25519_BITS: Final = 256
MAX_RECORD_NAME_OCTETS: Final = 250
"""The DNS allows 253; a file that is called like the record needs room for its suffix."""
MAX_REQUEST_ID: Final = 128
_MAX_PUBLIC_OCTETS: Final = 1024
"""An RSA key of 4096 bits takes 550."""


_E = TypeVar("_E", bound=StrEnum)


class KeyType(StrEnum):
    """The key type, as the `k=` tag spells it (RFC 6376 §3.6.1, RFC 8463 §4)."""

    RSA = "rsa"
    ED25519 = "ed25519"


class KeyDataError(ValueError):
    """What should describe a key does not; the message names the field, without its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What may be known about a key by everybody."""

    domain: str
    """The signing domain (`d=`): lower-case A-labels."""
    selector: str
    """The selector (`s=`), lower-case."""
    key_type: KeyType
    bits: int
    """256 for Ed25519."""
    public: str
    """The public key as the `p=` tag has it, base64."""
    created: datetime
    state: KeyState = KeyState.PENDING
    published: datetime | None = None
    """When the record was first seen everywhere."""
    activated: datetime | None = None
    retired: datetime | None = None
    """When it ceased to sign."""
    expires: datetime | None = None
    """When it should be replaced; None: never."""
    request_id: str = ""
    """What the request that made it was called by its sender."""
    predecessor: str = ""
    """The selector of the expiring key that this one was made to replace; blank for others."""
    revision: int = 1
    """Counts the changes, so that a late piece of news is known for what it is."""

    @property
    def record_name(self) -> str:
        """Where the record belongs (RFC 6376 §3.6.2.1)."""
        return record_name(self.domain, self.selector)

    @property
    def id(self) -> tuple[str, str]:
        """Domain and selector: what tells a key from all others."""
        return self.domain, self.selector

    @property
    def lifetime(self) -> timedelta:
        """From its creation to its expiry; 0 for a key that does not expire."""
        return self.expires - self.created if self.expires is not None else timedelta(0)

    def expired(self, now: datetime) -> bool:
        """Whether it should have been replaced by now."""
        return self.expires is not None and self.expires <= now

    def stepped(self, step: Step, now: datetime) -> Key:
        """The key after `step`, with the times that go with it; itself if the step changes nothing.

        Raises `ForbiddenStepError`.
        """
        state = after(self.state, step)
        if state is self.state:
            return self
        changed = replace(self, state=state, revision=self.revision + 1)
        match state:
            case KeyState.PUBLISHED:
                return replace(changed, published=self.published or now)
            case KeyState.PENDING:
                return replace(changed, published=None)
            case KeyState.ACTIVE:
                seen = now if step is Step.ACTIVATE else None
                return replace(changed, activated=now, published=self.published or seen)
            case KeyState.RETIRING | KeyState.RETIRED:
                return replace(changed, retired=self.retired or now)
        return changed

    def relied_on(self) -> Key:
        """The same in a new version: whoever changes the key without knowing of it is refused."""
        return replace(self, revision=self.revision + 1)


def record_name(domain: str, selector: str) -> str:
    """The absolute name of a key's record, without the final dot."""
    return f"{selector}._domainkey.{domain}"


_TIMES: Final = ("created", "published", "activated", "retired", "expires")


def to_fields(key: Key) -> dict[str, str]:
    """The text form; a field that is not set is left out."""
    fields = {
        "domain": key.domain,
        "selector": key.selector,
        "key-type": key.key_type.value,
        "bits": str(key.bits),
        "public": key.public,
        "state": key.state.value,
        "request-id": key.request_id,
        "predecessor": key.predecessor,
        "revision": str(key.revision),
    }
    for name in _TIMES:
        time: datetime | None = getattr(key, name)
        fields[name] = format_time(time) if time is not None else ""
    return {name: value for name, value in fields.items() if value}


def from_fields(fields: Mapping[str, str]) -> Key:
    """The key that the text form describes. Raises `KeyDataError`."""
    created = _time(fields, "created")
    if created is None:
        raise KeyDataError("created is missing")
    key_type = _member(KeyType, fields, "key-type")
    bits = _number(fields, "bits")
    if not _possible_size(key_type, bits):
        raise KeyDataError(f"bits is not a size that a key of type {key_type} has")
    return Key(
        domain=_domain(fields),
        selector=_selector(fields, "selector"),
        key_type=key_type,
        bits=bits,
        public=_public(fields),
        created=created,
        state=_member(KeyState, fields, "state"),
        published=_time(fields, "published"),
        activated=_time(fields, "activated"),
        retired=_time(fields, "retired"),
        expires=_time(fields, "expires"),
        request_id=parse_request_id(fields.get("request-id", "")),
        predecessor=_selector(fields, "predecessor") if fields.get("predecessor") else "",
        revision=_number(fields, "revision"),
    )


def parse_request_id(text: str) -> str:
    """The id of a request, if it can be kept. Raises `KeyDataError`."""
    if len(text) > MAX_REQUEST_ID or not (text.isascii() and text.isprintable()):
        raise KeyDataError(f"a request id is at most {MAX_REQUEST_ID} printable ASCII characters")
    return text


def format_time(time: datetime) -> str:
    """RFC 3339, in UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whole_seconds(time: datetime) -> datetime:
    """The time as a key keeps it."""
    return time.astimezone(UTC).replace(microsecond=0)


def _possible_size(key_type: KeyType, bits: int) -> bool:
    if key_type is KeyType.ED25519:
        return bits == ED25519_BITS
    return MIN_RSA_BITS <= bits <= MAX_RSA_BITS


def _domain(fields: Mapping[str, str]) -> str:
    try:
        return parse_domain(fields.get("domain", ""))
    except AddressError as error:
        raise KeyDataError("domain is not a domain") from error


def _selector(fields: Mapping[str, str], name: str) -> str:
    try:
        return parse_selector(fields.get(name, ""))
    except SelectorError as error:
        raise KeyDataError(f"{name} is not a selector") from error


def _public(fields: Mapping[str, str]) -> str:
    text = fields.get("public", "")
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyDataError("public is not base64") from error
    if not 0 < len(octets) <= _MAX_PUBLIC_OCTETS:
        raise KeyDataError("public is not a public key")
    return text


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise KeyDataError(f"{name} is not a number")
    return int(text)


def _member(kind: type[_E], fields: Mapping[str, str], name: str) -> _E:
    try:
        return kind(fields.get(name, ""))
    except ValueError as error:
        raise KeyDataError(f"{name} is none of {', '.join(kind)}") from error


def _time(fields: Mapping[str, str], name: str) -> datetime | None:
    text = fields.get(name, "")
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise KeyDataError(f"{name} is not a time such as 2026-01-31T12:00:00Z") from error
