"""SignMessage: the signatures of one mail, by every active key of its domain.

Refuses what a receiver could read differently than we do: a From that is missing, repeated or
malformed, or an author of another domain than the one that signs (DMARC alignment, RFC 9989; and
nobody may have something signed in another's name); line ends other than CRLF, since what leaves us
has no others; header blocks beyond the limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter, Histogram

from services.common.mail.domain import AddressError, parse_domain
from services.common.mail.message import HeaderError
from services.common.rpc.errors import (
    failed_precondition,
    invalid_argument,
    unavailable,
)
from services.keys.keyring import Keyring, NoUsableKeyError
from services.keys.signature import BODY_HASH_OCTETS, SignatureField, Signer, sign
from services.keys.signed_fields import Fields, authors, is_only_author, signed_fields

SLOW_BITS: Final = 2048
"""Signing takes 0.3 ms with 2048 bits and 2 ms with 4096: above this it would hold up the others,
and goes to a thread."""

SIGNATURES = Counter(
    "gatepost_keys_signatures_total",
    "Signatures asked for, by algorithm and result; `none` where no key was reached.",
    # rsa-sha256, ed25519-sha256, none; signed, no_key, no_usable_key, refused, not_loaded
    ["algorithm", "result"],
)
SECONDS = Histogram(
    "gatepost_keys_signing_seconds",
    "Time to make all signatures of one mail.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)


class MessageSigner:
    """Signs header blocks."""

    def __init__(
        self,
        keyring: Keyring,
        now: Callable[[], datetime],
        lifetime: Callable[[], timedelta] = timedelta,
    ) -> None:
        """`lifetime` is how long a signature made now is good for; 0 for ever."""
        self._keyring = keyring
        self._now = now
        self._lifetime = lifetime
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slow-signing")

    async def sign(
        self, domain: str, header_block: bytes, body_hash: bytes
    ) -> tuple[SignatureField, ...]:
        """The fields to put in front of the header, none if the domain's mail is not signed.

        Raises `RpcFailure`.
        """
        try:
            signers = self._signers(parse_domain(domain))
        except AddressError as error:
            raise _refused(f"domain: {error.reason}", reason="INVALID_DOMAIN") from error
        if not signers:
            SIGNATURES.labels("none", "no_key").inc()
            return ()
        header = _checked(header_block, signers[0].domain)
        if len(body_hash) != BODY_HASH_OCTETS:
            text = f"body_hash is a SHA-256 digest, {BODY_HASH_OCTETS} octets"
            raise _refused(text, reason="INVALID_BODY_HASH")
        with SECONDS.time():
            fields = await self._sign(header, body_hash, signers)
        for field in fields:
            SIGNATURES.labels(field.algorithm, "signed").inc()
        return fields

    async def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _signers(self, domain: str) -> tuple[Signer, ...]:
        if not self._keyring.loaded:
            SIGNATURES.labels("none", "not_loaded").inc()
            raise unavailable("the keys were not read yet", reason="KEYS_NOT_LOADED")
        try:
            return self._keyring.signing(domain).signers
        except NoUsableKeyError as error:
            SIGNATURES.labels("none", "no_usable_key").inc()
            text = f"{domain} has a key that should sign and cannot: {error}"
            raise failed_precondition(text, reason="NO_USABLE_KEY") from error

    async def _sign(
        self, header: Fields, body_hash: bytes, signers: tuple[Signer, ...]
    ) -> tuple[SignatureField, ...]:
        at = int(self._now().timestamp())
        lifetime = int(self._lifetime().total_seconds())

        def work() -> tuple[SignatureField, ...]:
            return sign(header, body_hash=body_hash, signers=signers, at=at, lifetime=lifetime)

        if any(signer.private.bits > SLOW_BITS for signer in signers):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return work()


def _checked(header_block: bytes, domain: str) -> Fields:
    """The fields of the header, if it is one that may be signed in the name of `domain`."""
    line_ends = header_block.count(b"\r\n")
    if not line_ends == header_block.count(b"\n") == header_block.count(b"\r"):
        raise _refused("header_block has a CR or LF of its own", reason="INVALID_HEADER")
    if b"\0" in header_block:
        raise _refused("header_block has a NUL", reason="INVALID_HEADER")
    if not header_block.endswith(b"\r\n") or b"\r\n\r\n" in header_block:
        text = "header_block is fields with their line ends, without the empty line"
        raise _refused(text, reason="INVALID_HEADER")
    try:
        fields = signed_fields(header_block)
    except HeaderError as error:
        raise _refused(f"header_block: {error}", reason="HEADER_TOO_BIG") from error
    if not is_only_author(fields, domain):
        _check_authors(fields, domain)
    return fields


def _check_authors(fields: Fields, domain: str) -> None:
    found = authors(fields)
    if found.problem is not None:
        raise _refused(found.problem, reason="INVALID_FROM")
    if any(author.domain != domain for author in found.addresses):
        text = f"the From field names an address that is not in {domain}"
        raise _refused(text, reason="FROM_NOT_ALIGNED")


def _refused(text: str, *, reason: str) -> Exception:
    SIGNATURES.labels("none", "refused").inc()
    return invalid_argument(text, reason=reason)
