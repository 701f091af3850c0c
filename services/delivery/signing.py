"""Outgoing mail is given its DKIM signatures: RFC 6376, by the `keys` service.

Only mail that comes from our own house is signed: submitted by an account that authenticated, with
an author in the domain of its reverse-path, which submission has checked, or made by ourselves.
Anybody can send us a mail that is forwarded somewhere and says `From: you@your-domain`; a signature
would make it true.

Guarantees: a mail of a domain that has keys never leaves unsigned because `keys` does not answer or
has no usable key: `SigningUnavailable`, and the mail waits.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Final, Protocol

import grpc
import grpc.aio
from prometheus_client import Counter

from gatepost.keys.v1.keys_pb2 import SignMessageRequest, SignMessageResponse
from gatepost.queue.v1.record_pb2 import QueuedMessage
from services.common.log import WARNING, event
from services.common.mail.body_hash import BodyHash, Canonicalization
from services.common.mail.message import (
    MAX_HEADER_OCTETS,
    HeaderError,
    from_addresses,
    header_length,
    parse_header,
)
from services.common.queue.record import sender_of
from services.delivery.smtp.transaction import Blocks

SIGNING_DEADLINE_S: Final = 10.0

SIGNED = Counter(
    "gatepost_delivery_signings_total",
    "Outgoing mails when signing is on, by what became of it.",
    # signed, no_key, not_ours (not submitted here, or in another's name), refused, unavailable
    ["result"],
)


_log = logging.getLogger(__name__)


class SigningUnavailable(Exception):
    """The mail cannot be signed just now and must not go unsigned. The text is for operators."""


class KeyStub(Protocol):
    """The part of `KeyServiceStub` that is used here."""

    @property
    def SignMessage(
        self,
    ) -> grpc.aio.UnaryUnaryMultiCallable[SignMessageRequest, SignMessageResponse]: ...


class Signer:
    """Has mails signed by `keys`."""

    def __init__(self, keys: KeyStub) -> None:
        self._keys = keys

    async def signatures(self, record: QueuedMessage, blocks: Blocks) -> bytes:
        """The fields to put in front of the content, with their line ends; perhaps none.

        `blocks` gives the content as it will stand on the wire. Raises `SigningUnavailable`, and
        what `blocks` raises.
        """
        if not (record.authenticated_account or not record.client_address):
            SIGNED.labels("not_ours").inc()
            return b""
        header, body_hash = await _header_and_body_hash(blocks)
        domain = _signing_domain(record, header)
        if not domain:
            SIGNED.labels("not_ours").inc()
            return b""
        return await self._ask(domain, header, body_hash)

    async def _ask(self, domain: str, header: bytes, body_hash: bytes) -> bytes:
        request = SignMessageRequest(domain=domain, header_block=header, body_hash=body_hash)
        try:
            response = await self._keys.SignMessage(request, timeout=SIGNING_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                # The header is one that nobody could sign; a wait would not mend it.
                SIGNED.labels("refused").inc()
                event(_log, WARNING, "sent unsigned", domain=domain, reason=error.details())
                return b""
            SIGNED.labels("unavailable").inc()
            raise SigningUnavailable(f"{error.code().name}: {error.details()}") from error
        SIGNED.labels("signed" if response.signatures else "no_key").inc()
        return b"".join(signature.header_field for signature in response.signatures)


def _signing_domain(record: QueuedMessage, header: bytes) -> str:
    """The author's domain, if this mail may speak for it; otherwise an empty string."""
    try:
        authors = from_addresses(parse_header(header))
    except HeaderError:
        return ""
    if authors.problem is not None:
        return ""
    domains = {author.domain for author in authors.addresses}
    sender = sender_of(record)
    if len(domains) != 1 or (sender is not None and sender.domain not in domains):
        return ""
    return domains.pop()


async def _header_and_body_hash(blocks: Blocks) -> tuple[bytes, bytes]:
    """The header block, and the hash of the body in relaxed canonicalisation."""
    begin = bytearray()
    length: int | None = None
    body = BodyHash(Canonicalization.RELAXED)
    async with aclosing(blocks()) as pieces:
        async for block in pieces:
            if length is not None:
                body.update(block)
                continue
            begin += block
            length = header_length(begin)
            if length is not None:
                body.update(begin[length + len(b"\r\n") :])
            elif len(begin) > MAX_HEADER_OCTETS:
                break
    header = bytes(begin if length is None else begin[:length])
    return header, body.digest()
