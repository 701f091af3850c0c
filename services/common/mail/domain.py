"""Domains and address literals: RFC 5321 §4.1.2 and §4.1.3, RFC 1123 §2.1, IDNA 2008 (RFC 5890, RFC
5891).

Canonical form: lower-case A-labels without a trailing dot, or `[192.0.2.1]` and
`[IPv6:2001:db8::1]`. Accepted: letter-digit-hyphen names, U-labels that strict IDNA 2008 allows
after lower-casing, IPv4 and IPv6 literals. Refused: empty labels, underscores, trailing dots, the
full stops of other scripts, full-width and other compatibility characters (never mapped: two
spellings of one name would be one name here and two elsewhere), an all-numeric last label (an
address somebody forgot to bracket, RFC 3696 §2), literals with a zone or an unregistered tag.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from services.common.mail.printable import one_line

# Without the root label and its length octet, a name's 255 octets (RFC 1035 §2.3.4) leave 253
# characters.
MAX_DOMAIN_OCTETS = 253
MAX_LABEL_OCTETS = 63
MAX_HELO_OCTETS = 255

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
# What resolver libraries read as part of an IPv4 address, hexadecimal included.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_IPV6_TAG = "ipv6:"


class AddressError(ValueError):
    """An address, path or domain that is refused; `reason` is one printable line, free of the text
    refused.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HeloKind(StrEnum):
    """What the argument of HELO or EHLO turned out to be."""

    DOMAIN = "domain"
    LITERAL = "literal"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class HeloName:
    """The name a client greeted with: canonical if it is valid, otherwise as received but made
    printable.
    """

    kind: HeloKind
    value: str
    address: IPv4Address | IPv6Address | None = None

    def __str__(self) -> str:
        return self.value


def parse_domain(text: str) -> str:
    """The canonical form of a domain in A-labels or U-labels; raises `AddressError`."""
    if not text:
        raise AddressError("the domain is empty")
    if len(text) > MAX_DOMAIN_OCTETS:
        raise AddressError(f"the domain is longer than {MAX_DOMAIN_OCTETS} octets")
    labels = [_canonical_label(label) for label in text.split(".")]
    if _NUMBER.fullmatch(labels[-1]):
        raise AddressError("the domain ends in a number; an address must stand in brackets")
    domain = ".".join(labels)
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise AddressError(f"the domain is longer than {MAX_DOMAIN_OCTETS} octets")
    return domain


def _canonical_label(label: str) -> str:
    if not label:
        raise AddressError("the domain has an empty label or a dot at its end")
    canonical = label.lower() if label.isascii() else _a_label(label)
    if len(canonical) > MAX_LABEL_OCTETS:
        raise AddressError(f"a label of the domain is longer than {MAX_LABEL_OCTETS} octets")
    if not _LABEL.fullmatch(canonical):
        raise AddressError("the domain holds a character that is no letter, digit or inner hyphen")
    return canonical


def _a_label(label: str) -> str:
    lowered = label.lower()
    # The Kelvin sign lower-cases to an ASCII k: taking it would be the mapping that this module
    # refuses.
    if any(not c.isascii() and any(low.isascii() for low in c.lower()) for c in label):
        raise AddressError("the domain holds a character that IDNA 2008 does not allow")
    try:
        return idna.alabel(lowered).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("the domain holds a label that IDNA 2008 does not allow") from error


def unicode_domain(domain: str) -> str:
    """`domain` (canonical) for a person to read: U-labels where they decode, anything else
    unchanged.
    """
    return ".".join(_u_label(label) for label in domain.split("."))


def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        # Names registered under older rules (emoji) exist and work as A-labels; they are shown as
        # such.
        return label


def parse_literal(text: str) -> IPv4Address | IPv6Address:
    """The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]`; raises `AddressError`."""
    if not (text.isascii() and text.startswith("[") and text.endswith("]")):
        raise AddressError("the address literal is not closed by a bracket")
    inner = text[1:-1]
    try:
        if inner[: len(_IPV6_TAG)].lower() != _IPV6_TAG:
            return IPv4Address(inner)
        if "%" not in inner:
            return IPv6Address(inner[len(_IPV6_TAG) :])
    except (AddressValueError, ValueError) as error:
        raise AddressError("the address literal holds no IPv4 or IPv6 address") from error
    raise AddressError("the address literal names a network zone")


def literal_text(address: IPv4Address | IPv6Address) -> str:
    """The canonical literal of an address."""
    return f"[{address}]" if isinstance(address, IPv4Address) else f"[IPv6:{ipv6_text(address)}]"


def ipv6_text(address: IPv6Address) -> str:
    """Compressed form that is the same under every Python (3.13 changed how mapped addresses
    print).
    """
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped else address.compressed


def parse_helo(text: str) -> HeloName:
    """What a client called itself. Never raises: a bad name is a finding for policy, not a reason
    to hang up.
    """
    name = text.strip(" ")
    try:
        if name.startswith("["):
            address = parse_literal(name)
            return HeloName(HeloKind.LITERAL, literal_text(address), address)
        # U-labels are for sessions that agreed on SMTPUTF8; at EHLO nobody has yet (RFC 6531
        # §3.7.1).
        if name.isascii():
            return HeloName(HeloKind.DOMAIN, parse_domain(name))
    except AddressError:
        pass
    return HeloName(HeloKind.INVALID, one_line(name, limit=MAX_HELO_OCTETS))
