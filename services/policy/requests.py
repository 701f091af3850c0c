"""Requests of PolicyService as values. What is wrong with one is told by field, with what may be.

Refused is only what cannot be judged: a missing session, an address that is none, too much of
something. HELO names, senders and recipients may be anything; judging them is what checks are for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from gatepost.policy.v1 import policy_pb2 as pb
from gatepost.policy.v1 import verdict_pb2
from services.common.mail.body_hash import Canonicalization
from services.common.mail.ids import MAX_ID_CHARACTERS, is_message_id
from services.common.mail.message import HeaderBlock, HeaderError, parse_header, split_message
from services.common.mail.printable import one_line
from services.common.rpc.errors import RpcFailure, invalid_argument
from services.policy.checks.check import Check, Finding
from services.policy.recorded import finding_of
from services.policy.subject import BodyDigest, Envelope, Mail, Session

MAX_RECIPIENTS = 1000
MAX_CONTENT_OCTETS = 3 * 2**20
MAX_TEXT_CHARACTERS = 4096
"""Of a HELO name or an address; the SMTP edge allows a fraction of this."""
MAX_BODY_DIGESTS = 100
MAX_RESULTS = 100

_HASH_OCTETS = {"sha256": 32}
_CANONICALIZATIONS = frozenset(Canonicalization)


def bad(field: str, text: str) -> RpcFailure:
    """The error for a field of the request."""
    reason = f"{field.split('[')[0].replace('.', '_').upper()}_INVALID"
    return invalid_argument(f"{field}: {text}", reason=reason)


def read_envelope(request: pb.CheckEnvelopeRequest | pb.CheckMessageRequest) -> Envelope:
    """Session and sender. Raises `RpcFailure` (INVALID_ARGUMENT)."""
    if not request.HasField("session"):
        raise bad("session", "missing; give at least session.client_address")
    session = request.session
    for field, text in (("session.helo", session.helo), ("sender", request.sender)):
        _check_length(field, text)
    _check_length("session.authenticated_account", session.authenticated_account)
    return Envelope(read_session(session), request.sender)


def read_session(session: pb.Session) -> Session:
    """The client's connection. Raises `RpcFailure` (INVALID_ARGUMENT)."""
    # A link-local address comes with the name of its network interface.
    text = session.client_address.partition("%")[0]
    try:
        address = _address(text)
    except ValueError:
        shown = one_line(session.client_address, limit=60)
        text = f"{shown!r} is not an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1"
        raise bad("session.client_address", text) from None
    return Session(
        address=address,
        helo=session.helo,
        session_id=session.session_id,
        authenticated_account=session.authenticated_account,
    )


def check_recipients(recipients: Iterable[str], *, count: int) -> None:
    """Raises `RpcFailure` (INVALID_ARGUMENT) for none or too many."""
    if not 1 <= count <= MAX_RECIPIENTS:
        raise bad("recipients", f"between 1 and {MAX_RECIPIENTS} addresses, not {count}")
    for number, recipient in enumerate(recipients):
        _check_length(f"recipients[{number}]", recipient)


def check_message_id(message_id: str, *, dry_run: bool) -> None:
    """Raises `RpcFailure` (INVALID_ARGUMENT) for what cannot be the name of a record."""
    if not message_id and dry_run:
        return
    if not is_message_id(message_id):
        text = f"1 to {MAX_ID_CHARACTERS} letters a-z, digits and inner hyphens"
        raise bad("message_id", f"{text}; may be empty in a dry run only")


def read_mail(request: pb.CheckMessageRequest, envelope: Envelope) -> Mail:
    """The mail itself. Raises `RpcFailure` (INVALID_ARGUMENT)."""
    match request.WhichOneof("mail"):
        case "header":
            digests = request.header.body_digests
            if len(digests) > MAX_BODY_DIGESTS:
                text = f"at most {MAX_BODY_DIGESTS} digests, not {len(digests)}"
                raise bad("header.body_digests", text)
            header = _header("header.header_block", request.header.header_block)
            return Mail(envelope, header, tuple(map(_digest, range(len(digests)), digests)))
        case "content":
            if len(request.content) > MAX_CONTENT_OCTETS:
                text = f"at most {MAX_CONTENT_OCTETS} octets, not {len(request.content)}"
                raise bad("content", f"{text}; send header and body_digests instead")
            block, body = split_message(_as_sent(request.content))
            return Mail(envelope, _header("content", block), body=body)
        case _:
            raise bad("mail", "missing; give either header or content")


def read_results(
    given: Iterable[verdict_pb2.CheckResult],
    checks: dict[str, Check[Envelope]],
    *,
    count: int,
    strict: bool,
) -> dict[str, Finding]:
    """The findings of an earlier CheckEnvelope, by check. Raises `RpcFailure`.

    `strict` refuses checks that are not known here. Real mail is not held up by one: while replicas
    are replaced, an older one may be given the results of a newer one.
    """
    if count > MAX_RESULTS:
        raise bad("envelope_results", f"at most {MAX_RESULTS} results, not {count}")
    findings: dict[str, Finding] = {}
    for number, result in enumerate(given):
        if result.check == RECIPIENT:
            continue  # what became of a recipient is no finding about the sender
        if result.check not in checks and not strict:
            continue
        if result.check not in checks:
            field = f"envelope_results[{number}].check"
            shown = one_line(result.check, limit=60)
            raise bad(field, f"{shown!r} is none of {', '.join(sorted(checks))}")
        findings[result.check] = finding_of(result, checks[result.check])
    return findings


RECIPIENT = "recipient"
"""The name under which a recipient's own result stands beside those of the checks."""


# The same clients come again and again. Only what is an address is kept, and that is short.
_address = lru_cache(maxsize=4096)(ip_address)


def _as_sent(content: bytes) -> bytes:
    """The content with the line ends of the wire. A file may have LF alone; a mail cannot."""
    return content if b"\r" in content else content.replace(b"\n", b"\r\n")


def _header(field: str, block: bytes) -> HeaderBlock:
    try:
        return parse_header(block)
    except HeaderError as error:
        raise bad(field, str(error)) from error


def _digest(number: int, digest: pb.BodyDigest) -> BodyDigest:
    field = f"header.body_digests[{number}]"
    if digest.canonicalization not in _CANONICALIZATIONS:
        raise bad(f"{field}.canonicalization", 'either "simple" or "relaxed"')
    size = _HASH_OCTETS.get(digest.hash_algorithm)
    if size is None:
        raise bad(f"{field}.hash_algorithm", 'only "sha256"')
    if len(digest.digest) != size:
        raise bad(f"{field}.digest", f"{size} octets, not {len(digest.digest)}")
    if digest.covered_octets > digest.total_octets:
        raise bad(f"{field}.covered_octets", "more than total_octets")
    return BodyDigest(
        digest.canonicalization,
        digest.hash_algorithm,
        digest.digest,
        digest.covered_octets,
        digest.total_octets,
    )


def _check_length(field: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise bad(field, f"at most {MAX_TEXT_CHARACTERS} characters, not {len(text)}")
