"""What became of TLS with a mail exchange, in the words of TLSRPT: RFC 8460 §4.2 and §4.3.

Every new session with a mail exchange is counted once, and so is every exchange that a policy keeps
us from; a session that is used again is not. Next hops that the operator named have no policies and
are not counted here. `tally` and `reporter` make reports of it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import Counter

SESSIONS = Counter(
    "gatepost_delivery_tls_policy_sessions_total",
    "Sessions with mail exchanges, by the policy for their encryption and what came of it.",
    ["policy", "result"],  # PolicyKind, TlsResult
)


class PolicyKind(StrEnum):
    """What decided how to encrypt (RFC 8460 §4.4, policy-type)."""

    STS = "sts"
    TLSA = "tlsa"
    NONE = "no-policy-found"


class TlsResult(StrEnum):
    """What came of it: success or one of the result types of RFC 8460 §4.3.

    `dane-required` is not among them: there is no setting that requires DANE of a domain without
    it.
    """

    SUCCESS = "success"
    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


@dataclass(frozen=True, slots=True)
class Terms:
    """The policy for a mail exchange as a report shows it (RFC 8460 §4.4)."""

    recipients: str
    """The domain that the mail is for; its `_smtp._tls` record says who is told."""
    domain: str
    """Whose policy it is: that domain, or for DANE the exchange."""
    lines: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """The patterns of an MTA-STS policy."""


@dataclass(frozen=True, slots=True)
class TlsReport:
    """What became of the encryption with one host."""

    host: str
    """Name and address; the name alone if it was passed over."""
    policy: PolicyKind
    result: TlsResult
    mode: str = ""
    """Of an MTA-STS policy: testing or enforce."""
    detail: str = ""
    """What is behind a result that is no success; one printable line."""
    name: str = ""
    address: str = ""
    terms: Terms | None = None

    def count(self) -> None:
        """Put it into the metric."""
        SESSIONS.labels(self.policy, self.result).inc()


# X509_V_ERR_…, by number since the ssl module does not name them.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_HOST_MISMATCHES: Final = frozenset({62, 64})


def result_of_handshake(error: Exception) -> TlsResult:
    """What a failed handshake is."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return TlsResult.VALIDATION_FAILURE
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return TlsResult.CERTIFICATE_EXPIRED
    if error.verify_code in _HOST_MISMATCHES:
        return TlsResult.CERTIFICATE_HOST_MISMATCH
    return TlsResult.CERTIFICATE_NOT_TRUSTED
