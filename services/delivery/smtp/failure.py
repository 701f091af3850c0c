"""How a session ends before its time, as one value that the rest of delivery understands."""

from __future__ import annotations

from enum import StrEnum

from services.common.mail.reply import Reply, make_reply
from services.delivery.tls.report import TlsResult


class Failure(StrEnum):
    """Why a session ended. The words are label values of metrics."""

    UNREACHABLE = "unreachable"
    """No connection: refused, no route, no answer."""
    TIMEOUT = "timeout"
    """The next hop took longer than RFC 5321 §4.5.3.2 asks us to wait."""
    LOST = "lost"
    """The next hop closed or reset the connection."""
    CLOSING = "closing"
    """The next hop said 421, or greeted with a refusal: it does not want us now."""
    PROTOCOL = "protocol"
    """What it says is not SMTP."""
    TLS = "tls"
    """The encryption that is wanted cannot be had."""
    AUTH = "auth"
    """It does not take our credentials, or cannot be asked."""


_ENHANCED = {
    Failure.UNREACHABLE: "4.4.1",
    Failure.TIMEOUT: "4.4.2",
    Failure.LOST: "4.4.2",
    Failure.CLOSING: "4.3.2",
    Failure.PROTOCOL: "4.5.0",
    Failure.TLS: "4.7.10",
    Failure.AUTH: "4.7.8",
}


class SessionFailed(Exception):
    """The session is over. `reply` is what the sender is told of it; temporary if it is ours."""

    def __init__(
        self,
        kind: Failure,
        text: str,
        *,
        reply: Reply | None = None,
        tls_result: TlsResult = TlsResult.VALIDATION_FAILURE,
    ) -> None:
        """`tls_result` is what a failure of kind TLS is for TLSRPT."""
        super().__init__(text)
        self.kind = kind
        self.tls_result = tls_result
        self.reply = reply or make_reply(451, _ENHANCED[kind], text)
