"""An account as it is stored: one JSON object under a key made of its address.

Keys of a bucket are subjects, so an address is encoded: `account.<domain>.<local part>`, the
domain's dots as `_` (which no domain holds), of the local part every octet but lower-case letters,
digits and hyphens as `=` and two hexadecimal digits. The key is made from the case-folded address,
so two spellings of one address are one account.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from services.common.mail.address import AddressError, Mailbox, make_mailbox

PREFIX = "account"
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
_ENCODED = re.compile(rb"=([0-9a-f]{2})")
_VERSION = 1


class Origin(StrEnum):
    """How an account came to be."""

    CREATED = "created"
    DECLARED = "declared"
    AUTO_CREATED = "auto_created"


class BadRecord(ValueError):
    """What is stored is no account that this version can read."""


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """One account. `password_hash` is in the format of argon2, or empty: nobody can log in."""

    address: str
    origin: Origin
    created: datetime
    updated: datetime
    password_hash: str = ""

    def __repr__(self) -> str:
        # A hash in a traceback would be a hash in a log.
        return f"AccountRecord({self.address!r})"

    def encode(self) -> bytes:
        """The octets to store."""
        fields = {
            "version": _VERSION,
            "address": self.address,
            "origin": self.origin.value,
            "created": self.created.isoformat(),
            "updated": self.updated.isoformat(),
            "password_hash": self.password_hash,
        }
        return json.dumps(fields).encode()


def decode(data: bytes) -> AccountRecord:
    """The account that was stored. Raises `BadRecord`."""
    try:
        fields = json.loads(data)
        if fields["version"] != _VERSION:
            raise BadRecord(f"an account of version {fields['version']!r}")
        return AccountRecord(
            address=str(fields["address"]),
            origin=Origin(fields["origin"]),
            created=datetime.fromisoformat(fields["created"]),
            updated=datetime.fromisoformat(fields["updated"]),
            password_hash=str(fields["password_hash"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"not an account ({type(error).__name__})") from error


# The same recipients come again and again.
@lru_cache(maxsize=4096)
def account_key(mailbox: Mailbox) -> str:
    """The key of an account. Raises `AddressError` for an address literal."""
    if mailbox.is_literal or not mailbox.domain:
        raise AddressError("an account's address has a domain that is a name")
    local_part = mailbox.key.rpartition("@")[0]
    return f"{domain_prefix(mailbox.domain)}{_encoded(local_part)}"


def domain_prefix(domain: str) -> str:
    """What the keys of a domain's accounts begin with; of all accounts, for a blank domain."""
    return f"{PREFIX}.{domain.replace('.', '_')}." if domain else f"{PREFIX}."


def address_of(key: str) -> Mailbox:
    """The address that `account_key` made `key` of. Raises `AddressError`."""
    try:
        prefix, domain, local_part = key.split(".")
        decoded = _ENCODED.sub(lambda found: bytes.fromhex(found[1].decode()), local_part.encode())
        mailbox = make_mailbox(decoded.decode(), domain.replace("_", "."))
    except (ValueError, UnicodeDecodeError) as error:
        raise AddressError("not the key of an account") from error
    if prefix != PREFIX or account_key(mailbox) != key:
        raise AddressError("not the key of an account")
    return mailbox


def _encoded(text: str) -> str:
    return "".join(chr(o) if o in _PLAIN else f"={o:02x}" for o in text.encode())
