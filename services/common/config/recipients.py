"""`domains`, `recipients`: whose mail we take and where it goes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from services.common.config import shapes
from services.common.config.next_hop import NextHopSetting
from services.common.config.types import Domain, FilePath, Section
from services.common.mail.address import parse_mailbox


def _parse_address(value: object) -> str:
    """An address with a domain, in its canonical spelling."""
    if not isinstance(value, str):
        raise ValueError("an address, for example you@example.org")  # noqa: TRY004 - pydantic's way
    mailbox = parse_mailbox(value, smtputf8=True)
    if not mailbox.domain:
        raise ValueError("an address with a domain, for example postmaster@example.org")
    return str(mailbox)


def _parse_blank_or_address(value: object) -> str:
    return "" if value in ("", None) else _parse_address(value)


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_ADDRESS: Final = shapes.text(shapes.ADDRESS, "you@example.org")
Address = Annotated[str, BeforeValidator(_parse_address), WithJsonSchema(_ADDRESS)]
BlankOrAddress = Annotated[
    str,
    BeforeValidator(_parse_blank_or_address),
    shapes.of_text(shapes.ADDRESS, "", "you@example.org", blank=True),
]
AliasTargets = Annotated[
    tuple[Address, ...],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=100),
    WithJsonSchema(
        {
            "anyOf": [
                _ADDRESS,
                {"type": "array", "items": _ADDRESS, "minItems": 1, "maxItems": 100},
            ]
        }
    ),
]


class Domains(Section):
    """Whose mail we take."""

    local: tuple[Domain, ...] = ()
    """Domains with mailboxes here."""
    relay: dict[Domain, NextHopSetting] = {}
    """Domains whose mail we pass on, each with its next hop: `smtp:host:port`, `smtp:host` (port
    25) or `lmtp:host:port`."""

    @model_validator(mode="after")
    def _disjoint(self) -> Domains:
        if both := sorted(set(self.local) & set(self.relay)):
            raise ValueError(f"{both[0]} is both a local and a relay domain")
        return self


class DomainRecipients(Section):
    """What is different for one local domain; what is not set is as in `recipients`."""

    refuse_unknown: bool | None = None
    auto_create: bool | None = None
    catch_all: BlankOrAddress | None = None


class Recipients(Section):
    """Recipients in local domains."""

    refuse_unknown: bool = False
    """Mail for an unknown recipient is refused, whatever the next two say."""
    auto_create: bool = False
    """An unknown recipient gets an account (a mailbox without a password)."""
    auto_create_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """How many accounts may come to be in this way, per domain and hour. Beyond it a recipient is
    treated as if `auto_create` were off."""
    catch_all: BlankOrAddress = ""
    """Otherwise mail for an unknown recipient goes to this account. Blank: it is refused."""
    domains: dict[Domain, DomainRecipients] = {}
    """Other rules for some local domains."""
    aliases: dict[Address, AliasTargets] = {}
    """Addresses in local domains that stand for one or several others, here or elsewhere."""
    accounts_file: FilePath | None = None
    """A file, usually a Secret, that declares accounts (`accounts`: a list of `address` with
    `password_hash` or `password`) and further `aliases`. The directory follows it: accounts that
    are taken out of it are removed, their mailboxes stay. An account whose domain is not in
    `domains.local` can log in and submit, and gets no mail here."""
    subaddress_separator: Annotated[str, Field(pattern=r"^[+\-=_#]?$")] = "+"
    """`user+anything` goes to `user`. Blank: no sub-addresses."""
