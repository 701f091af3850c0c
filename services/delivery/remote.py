"""One attempt at the next hops of a route: hosts in their order, sessions, one transaction.

RFC 5321 §5.1 (order, several addresses). Guarantees: every addressee has a result in the end;
before the dot the next host is tried, after it none; with less encryption only where no more is
demanded, and then only after it could not be had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.common.config.source import ConfigSource
from services.common.dns import Resolver
from services.common.log import INFO, WARNING, event
from services.common.mail.reply import Reply
from services.delivery.exchanges import Host, NoExchange, hosts_of_hop
from services.delivery.mx_places import MxPlaces
from services.delivery.outcome import Result, result_of
from services.delivery.place import Place, ways_down
from services.delivery.route import Hop, HopRoute, MxRoute
from services.delivery.smtp.auth import Credentials
from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.pool import SessionPool
from services.delivery.smtp.session import Patience, Peer, Session, Tls, open_session
from services.delivery.smtp.transaction import Addressee, Mail, transact
from services.delivery.tls.report import TlsReport

NO_CREDENTIALS: Final = Reply(451, "4.7.8", "The credentials for the smarthost cannot be read")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RemoteAttempt:
    """What came of it."""

    results: dict[Addressee, Result] = field(default_factory=dict)
    next_hop: str = ""
    """The last host that was asked; empty if there was none."""
    tls_version: str = ""
    tls: list[TlsReport] = field(default_factory=list)
    """What became of encryption with the mail exchanges that were tried, in their order."""
    failure: Reply | None = None
    """Why no host could be talked to at all; None if one could."""


class RemoteDelivery:
    """Delivers over SMTP and LMTP."""

    def __init__(
        self,
        source: ConfigSource,
        resolver: Resolver,
        exchanges: MxPlaces,
        *,
        on_tls: Callable[[TlsReport], None] = TlsReport.count,
        patience: Patience | None = None,
    ) -> None:
        """`on_tls` is told of each new session with a mail exchange."""
        self._source = source
        self._resolver = resolver
        self._exchanges = exchanges
        self._on_tls = on_tls
        self._patience = patience or Patience()
        self._pool = SessionPool()

    async def deliver(
        self, route: HopRoute | MxRoute, mail: Mail, addressees: Sequence[Addressee]
    ) -> RemoteAttempt:
        """Try to deliver. Raises what `mail.blocks` raises, and `PoliciesUnreadable`."""
        attempt = RemoteAttempt()
        try:
            places = await self._places(route)
        except NoExchange as error:
            event(_log, INFO, "no next hop", route=route.key, reason=str(error))
            attempt.results.update(dict.fromkeys(addressees, result_of(error.reply)))
            return attempt
        if mail.encryption_optional and not self._source.current.delivery.require_tls:
            places = [place.relaxed() for place in places]
        failures: list[SessionFailed] = []
        for place in places:
            left = [each for each in addressees if each not in attempt.results]
            if not left:
                break
            try:
                await self._at(place, mail, left, attempt)
            except SessionFailed as error:
                if any(each not in attempt.results for each in addressees):
                    failures.append(error)
                event(_log, INFO, "session failed", next_hop=place, reason=str(error))
        self._conclude(attempt, addressees, failures, len(places))
        return attempt

    async def close(self) -> None:
        """End the sessions that are kept open."""
        await self._pool.close()

    async def _at(
        self, place: Place, mail: Mail, left: list[Addressee], attempt: RemoteAttempt
    ) -> None:
        """Try one host; a session that was kept may have died, so then a new one is tried too."""
        attempt.next_hop = str(place)
        attempt.tls_version = ""
        if place.refusal is not None:
            self._tell(place.of_failure(place.refusal), attempt)
            raise place.refusal
        kept = self._kept(place)
        if kept is not None:
            if (report := place.of_session(kept)) is not None:
                attempt.tls.append(report)
            try:
                await self._use(kept, mail, left, attempt)
            except SessionFailed:
                left = [each for each in left if each not in attempt.results]
            else:
                return
        if left:
            await self._use(await self._open(place, attempt), mail, left, attempt)

    async def _use(
        self, session: Session, mail: Mail, left: list[Addressee], attempt: RemoteAttempt
    ) -> None:
        attempt.tls_version = session.tls_version
        await transact(session, mail, left, attempt.results)
        self._pool.give(session)

    def _kept(self, place: Place) -> Session | None:
        """An open session with this host that is good enough."""
        found = (self._pool.take(way) for way in place.ways)
        return next((session for session in found if session is not None), None)

    async def _open(self, place: Place, attempt: RemoteAttempt) -> Session:
        """A new session, in the best way that works."""
        report: TlsReport | None = None
        for way in place.ways[:-1]:
            try:
                session = await self._begin(way)
            except SessionFailed as error:
                if error.kind is not Failure.TLS:
                    raise
                # It cannot be had like this. Less is allowed, and the alternative is no mail.
                event(_log, INFO, "less encryption", next_hop=place, reason=str(error))
                report = report or place.of_failure(error)
            else:
                return self._begun(session, report or place.of_session(session), attempt)
        try:
            session = await self._begin(place.ways[-1])
        except SessionFailed as error:
            if error.kind is Failure.TLS:
                report = report or place.of_failure(error)
            self._tell(report, attempt)
            raise place.explained(error) from error
        return self._begun(session, report or place.of_session(session), attempt)

    def _begun(self, session: Session, report: TlsReport | None, attempt: RemoteAttempt) -> Session:
        session.report = report
        self._tell(report, attempt)
        return session

    def _tell(self, report: TlsReport | None, attempt: RemoteAttempt) -> None:
        if report is not None:
            self._on_tls(report)
            attempt.tls.append(report)

    async def _begin(self, peer: Peer) -> Session:
        config = self._source.current
        own = config.delivery.source_address
        source = own.ipv4 if peer.address.version == 4 else own.ipv6
        return await open_session(
            peer,
            helo=config.delivery.helo_name or config.smtp.hostname,
            patience=self._patience,
            source=str(source) if source is not None else "",
        )

    async def _places(self, route: HopRoute | MxRoute) -> list[Place]:
        if isinstance(route, MxRoute):
            return await self._exchanges.of(route.domain)
        return [Place(ways_down(peer)) for peer in await self._hop_peers(route)]

    async def _hop_peers(self, route: HopRoute) -> list[Peer]:
        """The peers of all hops in their order; one that cannot be found leaves the others."""
        peers: list[Peer] = []
        family = self._source.current.delivery.address_family
        missing: NoExchange | None = None
        for hop in route.hops:
            try:
                hosts = await hosts_of_hop(self._resolver, hop.next_hop, family)
                credentials = _credentials(hop)
            except NoExchange as error:
                event(_log, WARNING, "next hop passed over", hop=hop.next_hop, reason=str(error))
                missing = error
                continue
            peers += [self._hop_peer(host, hop, credentials) for host in hosts]
        if not peers and missing is not None:
            raise missing
        return peers

    def _hop_peer(self, host: Host, hop: Hop, credentials: Credentials | None) -> Peer:
        if credentials is not None:
            tls = Tls.VERIFIED if hop.verified else Tls.REQUIRED
        else:
            demanded = self._source.current.delivery.require_tls and not hop.is_lmtp
            tls = Tls.REQUIRED if demanded else Tls.OPPORTUNISTIC
        return Peer(
            name=host.name,
            address=host.address,
            port=hop.next_hop.port,
            lmtp=hop.is_lmtp,
            tls=tls,
            credentials=credentials,
            ca_file=hop.ca_file if tls is Tls.VERIFIED else None,
        )

    def _conclude(
        self,
        attempt: RemoteAttempt,
        addressees: Sequence[Addressee],
        failures: list[SessionFailed],
        peers: int,
    ) -> None:
        """Give a result to those who have none, and note if nobody could be talked to."""
        left = [each for each in addressees if each not in attempt.results]
        if not failures:
            return
        # A refusal at the greeting is final only if every host refuses (RFC 7504 §4).
        temporary = [error for error in failures if not error.reply.is_permanent]
        reply = (temporary or failures)[-1].reply
        attempt.results.update(dict.fromkeys(left, result_of(reply, attempt.next_hop)))
        if len(failures) == peers:
            attempt.failure = reply


def _credentials(hop: Hop) -> Credentials | None:
    """The credentials of a smarthost, read anew: they may have been exchanged."""
    file = hop.token_file or hop.password_file
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NoExchange(NO_CREDENTIALS, f"{file}: {error}") from error
    return Credentials(hop.username, secret, is_token=hop.token_file is not None)
