"""What is judged: a client's session, the envelope, the mail. Values without I/O.

Nothing here refuses anything: a HELO name that is none and a sender that does not parse are facts
that the checks judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from services.common.mail.address import (
    AddressError,
    HeloName,
    Mailbox,
    parse_helo,
    parse_mailbox,
)
from services.common.mail.author import Authors
from services.common.mail.body_hash import BodyHash
from services.common.mail.message import HeaderBlock, from_addresses
from services.policy.arc.result import NO_CHAIN, ArcResult
from services.policy.identifiers import Identifiers

if TYPE_CHECKING:
    from services.policy.dkim.verification import SignatureResult

IPAddress = IPv4Address | IPv6Address

# The same hosts come again and again. A name that is longer than any that is valid is not kept.
_MAX_KNOWN_HELO = 255
_known_helo = lru_cache(maxsize=4096)(parse_helo)

MAX_DIGESTS = 8
"""Different hashes of one body: each is work for all of its octets."""


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """A hash of the canonicalised body (RFC 6376 §3.4), as the ingress computes it."""

    canonicalization: str
    hash_algorithm: str
    digest: bytes
    covered_octets: int
    total_octets: int


class Session:
    """A client's connection. `address` is never an IPv4-mapped IPv6 address."""

    __slots__ = ("address", "authenticated_account", "helo", "helo_text", "session_id")

    def __init__(
        self,
        *,
        address: IPAddress,
        helo: str,
        session_id: str = "",
        authenticated_account: str = "",
    ) -> None:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        self.address: IPAddress = mapped or address
        self.helo_text = helo
        parse = _known_helo if len(helo) <= _MAX_KNOWN_HELO else parse_helo
        self.helo: HeloName = parse(helo)
        self.session_id = session_id
        self.authenticated_account = authenticated_account


class Envelope:
    """A session and a reverse-path. `sender` is None for the null sender and for an invalid one."""

    __slots__ = ("sender", "sender_problem", "sender_text", "session")

    def __init__(self, session: Session, sender: str) -> None:
        self.session = session
        self.sender_text = sender
        self.sender: Mailbox | None = None
        self.sender_problem = ""
        """Why `sender_text` is not an address; empty if it is one, or blank."""
        if sender:
            self.sender, self.sender_problem = _parsed(sender)

    @property
    def is_null(self) -> bool:
        """Whether the reverse-path is `<>`."""
        return not self.sender_text


class Mail:
    """An envelope, the header block and what is known of the body: its digests, or all of it."""

    def __init__(
        self,
        envelope: Envelope,
        header: HeaderBlock,
        body_digests: tuple[BodyDigest, ...] = (),
        *,
        body: bytes | None = None,
    ) -> None:
        self.envelope = envelope
        self.header = header
        self._digests = {
            (
                d.canonicalization,
                None if d.covered_octets == d.total_octets else d.covered_octets,
            ): d
            for d in body_digests
        }
        self._body = body
        self.signatures: tuple[SignatureResult, ...] = ()
        """Filled before the checks run."""
        self.arc: ArcResult = NO_CHAIN
        self.spf_result = ""
        self.spf_domain = ""
        """What SPF said of the envelope, and of which domain; filled before the checks run."""

    @property
    def identifiers(self) -> Identifiers:
        """The domains that were authenticated."""
        spf = self.spf_domain.lower() if self.spf_result == "pass" else ""
        doubtful = [signature.result == "temperror" for signature in self.signatures]
        return Identifiers(
            spf=spf,
            dkim=tuple(signature.domain for signature in self.signatures if signature.passed),
            incomplete=self.spf_result == "temperror" or any(doubtful),
        )

    @cached_property
    def authors(self) -> Authors:
        """The addresses of the From fields."""
        return from_addresses(self.header)

    def body_digest(self, canonicalization: str, limit: int | None) -> BodyDigest | None:
        """The SHA-256 of the canonicalised body or of its first `limit` octets; None if unknown."""
        found = self._digests.get((canonicalization, limit))
        if found is not None or limit is None:
            return found
        # A length that covers all of the body asks for the digest of all of it.
        whole = self._digests.get((canonicalization, None))
        return whole if whole is not None and whole.total_octets <= limit else None

    async def hash_body(self, wanted: Iterable[tuple[str, int | None]]) -> None:
        """Make the digests that are asked for, where the body is at hand; otherwise do nothing.

        In a thread: a body of megabytes is work for tens of milliseconds.
        """
        if self._body is None:
            return
        missing = [key for key in dict.fromkeys(wanted) if key not in self._digests]
        room = max(MAX_DIGESTS - len(self._digests), 0)
        if missing and room:
            made = await asyncio.to_thread(_digests, self._body, missing[:room])
            self._digests |= made


def _digests(
    body: bytes, wanted: Iterable[tuple[str, int | None]]
) -> dict[tuple[str, int | None], BodyDigest]:
    return {(kind, limit): _digest(body, kind, limit) for kind, limit in wanted}


def _digest(body: bytes, canonicalization: str, limit: int | None) -> BodyDigest:
    body_hash = BodyHash(canonicalization, limit)
    body_hash.update(body)
    digest = body_hash.digest()
    return BodyDigest(
        canonicalization, "sha256", digest, body_hash.covered_octets, body_hash.total_octets
    )


def _parsed(sender: str) -> tuple[Mailbox | None, str]:
    try:
        mailbox = parse_mailbox(sender, smtputf8=True)
    except AddressError as error:
        return None, error.reason
    if not mailbox.domain:
        return None, "the reverse-path has no domain"
    return mailbox, ""
