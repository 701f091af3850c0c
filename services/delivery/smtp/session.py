"""A session with a next hop up to the point where mail can be sent, and its end.

RFC 5321 §3.1, §3.2, §4.1.1.1 (greeting, EHLO, HELO), RFC 3207 (STARTTLS), RFC 4954 (AUTH),
RFC 2033 (LMTP).

Guarantees: with `Tls.REQUIRED` nothing of a mail is said in clear; credentials are sent over TLS
only; what was offered before the handshake is forgotten after it.

Life cycle: `open_session` → any number of transactions (transaction.py) → `quit`, or `abort` after
a `SessionFailed`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from services.common.dns import IPAddress
from services.common.failpoint import Failpoint, reached
from services.common.mail.reply import Reply
from services.delivery.smtp.auth import Credentials, authenticate
from services.delivery.smtp.connection import Connection
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.tls_context import authenticating, unverified, verifying
from services.delivery.tls.association import judge
from services.delivery.tls.dane import Dane
from services.delivery.tls.report import TlsReport, TlsResult

TLS = Counter(
    "gatepost_delivery_tls_sessions_total",
    "Sessions with next hops, by what became of encryption.",
    ["result"],  # TLSv1.2, TLSv1.3, clear, failed
)

_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


class Tls(StrEnum):
    """What is demanded of a session."""

    VERIFIED = "verified"
    """Encrypted, by a host that shows a certificate for its name."""
    AUTHENTICATED = "authenticated"
    """The same, for a name that a domain's MTA-STS policy gives."""
    DANE = "dane"
    """Encrypted, by a host that shows what its TLSA records say."""
    REQUIRED = "required"
    OPPORTUNISTIC = "opportunistic"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0
    """The kernel's own limit would be two minutes, and there may be more addresses to try."""
    greeting: float = 300.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end_of_data: float = 600.0
    """The peer may be storing the mail: giving up early makes duplicates."""
    quit: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to talk to and how."""

    name: str
    """The host's name; its address if it has none."""
    address: IPAddress
    port: int = 25
    lmtp: bool = False
    tls: Tls = Tls.OPPORTUNISTIC
    credentials: Credentials | None = None
    ca_file: Path | None = None
    """For `Tls.VERIFIED`: who may certify; None for the authorities of the system."""
    extra_ca_file: Path | None = None
    """For `Tls.AUTHENTICATED`: who may certify besides the authorities of the system."""
    dane: Dane | None = None
    """For `Tls.DANE`, and for that alone."""

    def __str__(self) -> str:
        place = f"[{self.address}]:{self.port}"
        return place if self.name == str(self.address) else f"{self.name}{place}"


class Session:
    """An open session. Made by `open_session`."""

    def __init__(self, connection: Connection, peer: Peer, patience: Patience) -> None:
        self.connection = connection
        self.peer = peer
        self.hop = str(peer)
        """The peer as results name it."""
        self.patience = patience
        self.extensions: Mapping[str, str] = {}
        """EHLO keywords in upper case, each with its parameters."""
        self.mails = 0
        """How many mails were sent here."""
        self.report: TlsReport | None = None
        """What became of its encryption, if it is one with a mail exchange of a domain."""

    @property
    def tls_version(self) -> str:
        """For example "TLSv1.3"; empty without TLS."""
        return self.connection.tls_version

    async def command(self, line: str, *, limit_s: float | None = None) -> Reply:
        """Say one line. A 421 ends the session: it is raised as `SessionFailed`."""
        reply = await self.connection.command(line, limit_s=limit_s or self.patience.command)
        return going_on(reply)

    async def quit(self) -> None:
        """End in order. Never raises."""
        try:
            await self.connection.command("QUIT", limit_s=self.patience.quit)
        except SessionFailed:
            self.connection.abort()
        else:
            await self.connection.close(limit_s=self.patience.quit)

    def abort(self) -> None:
        """Drop the connection."""
        self.connection.abort()


def going_on(reply: Reply) -> Reply:
    """The reply, unless it says that the peer closes the session (RFC 5321 §3.8)."""
    if reply.code == 421:
        raise SessionFailed(Failure.CLOSING, "the next hop closes the session", reply=reply)
    return reply


async def open_session(peer: Peer, *, helo: str, patience: Patience, source: str = "") -> Session:
    """Connect, greet, encrypt and authenticate as `peer` says. Raises `SessionFailed`."""
    connection = await Connection.connect(
        peer.address, peer.port, limit_s=patience.connect, source=source
    )
    reached(Failpoint.AFTER_CONNECT)
    session = Session(connection, peer, patience)
    try:
        greeting = await connection.reply("the connection", limit_s=patience.greeting)
        if not greeting.is_success:
            raise SessionFailed(Failure.CLOSING, "the next hop greets with no", reply=greeting)
        await _hello(session, helo)
        await _encrypt(session, helo)
        if peer.credentials is not None:
            await authenticate(
                session.command,
                session.extensions,
                peer.credentials,
                encrypted=bool(session.tls_version),
            )
    except BaseException:
        connection.abort()
        raise
    TLS.labels(session.tls_version or "clear").inc()
    return session


async def _hello(session: Session, helo: str) -> None:
    verb = "LHLO" if session.peer.lmtp else "EHLO"
    reply, lines = await session.connection.dialogue(
        f"{verb} {helo}", limit_s=session.patience.command
    )
    going_on(reply)
    if reply.is_success:
        session.extensions = parse_extensions(lines)
        return
    if reply.is_permanent and not session.peer.lmtp:
        reply = await session.command(f"HELO {helo}")
        session.extensions = {}
    if not reply.is_success:
        raise SessionFailed(Failure.CLOSING, "the next hop does not greet us", reply=reply)


def parse_extensions(lines: list[bytes]) -> dict[str, str]:
    """The keywords of an EHLO reply, without its first line; what is no keyword is left out."""
    found = {}
    for line in lines[1:]:
        keyword, _, parameters = line[4:].decode("ascii", "replace").strip().partition(" ")
        if _KEYWORD.fullmatch(keyword):
            found[keyword.upper()] = parameters.strip()
    return found


async def _encrypt(session: Session, helo: str) -> None:
    peer = session.peer
    if peer.tls is Tls.OFF:
        return
    if "STARTTLS" in session.extensions:
        reply = await session.command("STARTTLS")
        if reply.is_success:
            await _handshake(session)
            await _hello(session, helo)
            return
    else:
        reply = None
    if peer.tls is not Tls.OPPORTUNISTIC:
        TLS.labels("failed").inc()
        said = f"it answers STARTTLS with {reply}" if reply else "it does not offer STARTTLS"
        raise SessionFailed(
            Failure.TLS,
            f"the next hop must encrypt, and {said}",
            tls_result=TlsResult.STARTTLS_NOT_SUPPORTED,
        )


async def _handshake(session: Session) -> None:
    try:
        context, name = _context(session.peer)
        await session.connection.start_tls(
            context, server_name=name, limit_s=session.patience.command
        )
        _check_certificate(session)
    except OSError as error:
        TLS.labels("failed").inc()
        text = f"the authorities cannot be read: {error.strerror or error}"
        raise SessionFailed(Failure.TLS, text) from error
    except SessionFailed:
        TLS.labels("failed").inc()
        raise
    session.extensions = {}


def _context(peer: Peer) -> tuple[ssl.SSLContext, str]:
    """What is demanded in the handshake, and the name to ask for. Raises OSError."""
    match peer.tls:
        case Tls.VERIFIED:
            return verifying(peer.ca_file), peer.name
        case Tls.AUTHENTICATED:
            return authenticating(peer.extra_ca_file), peer.name
    if peer.dane is not None:
        return unverified(), peer.dane.base
    # Who has no name is known by its address; SNI then stays away by itself (RFC 6066 §3).
    return unverified(), peer.name if peer.name != str(peer.address) else ""


def _check_certificate(session: Session) -> None:
    """With DANE, compare after the handshake what was shown in it. Raises `SessionFailed`."""
    dane = session.peer.dane
    if dane is None:
        return
    shown = session.connection.certificates()
    mismatch = judge(shown, dane.records, names=dane.names, now=datetime.now(UTC))
    if mismatch is not None:
        raise SessionFailed(Failure.TLS, mismatch.text, tls_result=mismatch.result)
