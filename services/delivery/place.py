"""A host to try, with the ways to talk to it that are good enough, the best first.

A way that asks for less encryption is tried only when the one before failed for want of it; the
last is the least that is allowed. Where a policy demands encryption, no way without it is among
them, so nothing that an attacker does on the line can lead there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from services.delivery.smtp.failure import Failure, SessionFailed
from services.delivery.smtp.session import Peer, Session, Tls
from services.delivery.tls.report import PolicyKind, Terms, TlsReport, TlsResult


@dataclass(frozen=True, slots=True)
class Place:
    """A host and how to talk to it."""

    ways: tuple[Peer, ...]
    """At least one."""
    policy: PolicyKind | None = None
    """What decided about encryption; None for a next hop that the operator named."""
    mode: str = ""
    """Of an MTA-STS policy."""
    demanded_by: str = ""
    """Who demands more than encryption at best, for people."""
    lacking: TlsResult = TlsResult.SUCCESS
    """What is wrong, whatever becomes of the session."""
    detail: str = ""
    """About `lacking`."""
    refusal: SessionFailed | None = None
    """Why this host is not talked to at all."""
    terms: Terms | None = None
    """What `policy` is about, for reports."""

    def __str__(self) -> str:
        return str(self.ways[0])

    def of_failure(self, error: SessionFailed) -> TlsReport | None:
        """What to tell of encryption that could not be had."""
        return self._report(error.tls_result, str(error))

    def of_session(self, session: Session) -> TlsReport | None:
        """What to tell of a session that stands."""
        if session.report is not None and session.report.policy is self.policy:
            return session.report
        if self.lacking is TlsResult.SUCCESS and not session.tls_version:
            return self._report(TlsResult.STARTTLS_NOT_SUPPORTED, "")
        return self._report(self.lacking, self.detail)

    def relaxed(self) -> Place:
        """The same host with no more encryption than can be had, and nothing to tell of it."""
        peer = dataclasses.replace(self.ways[0], tls=Tls.OPPORTUNISTIC, dane=None)
        return Place(ways_down(peer))

    def explained(self, error: SessionFailed) -> SessionFailed:
        """The failure, with the word of who demands what could not be had."""
        if error.kind is not Failure.TLS or not self.demanded_by:
            return error
        text = f"{self.demanded_by}: {error}"
        return SessionFailed(Failure.TLS, text, tls_result=error.tls_result)

    def _report(self, result: TlsResult, detail: str) -> TlsReport | None:
        if self.policy is None:
            return None
        peer = self.ways[0]
        return TlsReport(
            str(self),
            self.policy,
            result,
            self.mode,
            detail,
            name=peer.name,
            address=str(peer.address),
            terms=self.terms,
        )


def ways_down(peer: Peer) -> tuple[Peer, ...]:
    """A peer and, if encryption is only the better choice, the same without it.

    One that offers TLS and cannot do it would otherwise get no mail at all (RFC 7435).
    """
    if peer.tls is not Tls.OPPORTUNISTIC:
        return (peer,)
    return peer, dataclasses.replace(peer, tls=Tls.OFF)
