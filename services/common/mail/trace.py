"""Trace fields: `Received` and `Return-Path` of RFC 5321 §4.4, protocol keywords of RFC 3848 and
RFC 6531 §4.3.

Every value from outside (HELO name, reverse DNS name, TLS names) is reduced to characters that mean
nothing in a header; the time is passed in. `for` is written only when the mail has one recipient,
so that no blind copy is betrayed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from services.common.mail.address import AddressError, HeloKind, HeloName, Mailbox, parse_domain
from services.common.mail.domain import literal_text
from services.common.mail.message import folded
from services.common.mail.printable import REPLACEMENT

# Long enough for every cipher name and honest host name; what is cut was meant to be noise.
MAX_WORD_CHARACTERS = 128

# Parentheses and backslashes would end or bend the comment; anything else unusual is not worth a
# risk.
_HARMFUL = re.compile(r"[^A-Za-z0-9._:/+\[\]-]")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What was agreed, in the words of the TLS library: "TLSv1.3", "TLS_AES_256_GCM_SHA384"."""

    version: str
    cipher: str


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a mail came in, as far as the `with` keyword tells."""

    esmtp: bool = True
    """EHLO rather than HELO."""
    tls: bool = False
    authenticated: bool = False
    smtputf8: bool = False
    lmtp: bool = False

    @property
    def keyword(self) -> str:
        """The registered keyword. RFC 3848 has none for TLS or AUTH after HELO, so those are plain
        SMTP.
        """
        suffix = ("S" if self.tls else "") + ("A" if self.authenticated else "")
        name = "LMTP" if self.lmtp else "SMTP"
        if self.smtputf8:
            return f"UTF8{name}{suffix}"
        if self.lmtp:
            return f"LMTP{suffix}"
        return f"ESMTP{suffix}" if self.esmtp else "SMTP"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who handed the mail over."""

    helo: HeloName
    """The name it gave."""
    address: IPv4Address | IPv6Address
    reverse_name: str | None = None
    """The name that reverse DNS gives the address, if any; a stranger chose it."""


def received_field(
    *,
    origin: Origin,
    by: str,
    protocol: Protocol,
    message_id: str,
    recipients: Sequence[Mailbox],
    received_at: datetime,
    tls: TlsSession | None = None,
) -> bytes:
    """The `Received` field, with its CRLF, of a mail taken from a client.

    Raises ValueError if `by` is no domain or `received_at` knows no time zone.
    """
    return folded(
        "Received",
        f"from {_from_clause(origin)}",
        f"by {_our_name(by)} (Gatepost)",
        f"with {protocol.keyword}{_tls_comment(tls)}",
        f"id {_harmless(message_id)}{_for_clause(recipients, protocol=protocol)};",
        date_text(received_at),
        utf8=protocol.smtputf8,
    )


def return_path_field(reverse_path: Mailbox | None) -> bytes:
    """The `Return-Path` field that final delivery puts on top; `<>` for the null sender."""
    # A mailbox cannot hold a line end and fits a line, so nothing needs folding or cleaning.
    return f"Return-Path: <{reverse_path or ''}>\r\n".encode()


# A server has one name.
_our_name = lru_cache(maxsize=8)(parse_domain)


def _from_clause(origin: Origin) -> str:
    """Extended-Domain; a name that is neither domain nor literal is a remark in a comment."""
    literal = literal_text(origin.address)
    if origin.helo.kind is HeloKind.INVALID:
        return f"{literal} (helo {_harmless(origin.helo.value)})"
    reverse = _reverse_name(origin.reverse_name)
    return f"{origin.helo.value} ({reverse}{literal})"


def _reverse_name(name: str | None) -> str:
    """The name as TCP-info wants it, with a space behind; "" if it is no domain."""
    try:
        return f"{parse_domain(name.removesuffix('.'))} " if name else ""
    except AddressError:
        return ""


def _tls_comment(tls: TlsSession | None) -> str:
    if not tls:
        return ""
    return f" (version={_harmless(tls.version)} cipher={_harmless(tls.cipher)})"


def _for_clause(recipients: Sequence[Mailbox], *, protocol: Protocol) -> str:
    if len(recipients) != 1 or (recipients[0].needs_smtputf8 and not protocol.smtputf8):
        return ""
    return f" for <{recipients[0]}>"


def _harmless(text: str) -> str:
    """`text` as one word that may stand in a comment or a clause."""
    return _HARMFUL.sub(REPLACEMENT, text[:MAX_WORD_CHARACTERS]) or REPLACEMENT


def date_text(moment: datetime) -> str:
    """The date-time of RFC 5322 §3.3 in the zone of `moment`; ValueError if it knows none."""
    if moment.tzinfo is None:
        raise ValueError("the time of a trace field must know its time zone")
    # Not strftime: its %a and %b speak the language of the process, and it takes ten times as long.
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    time = moment.isoformat(" ", "seconds")[11:]
    return f"{day}, {moment.day} {month} {moment.year} {time[:8]} {time[8:].replace(':', '')}"
