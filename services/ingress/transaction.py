"""A mail transaction from MAIL to its end (RFC 5321 §3.3), and the session that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from gatepost.policy.v1.policy_pb2 import Session as PolicySession
from gatepost.policy.v1.verdict_pb2 import CheckResult
from services.common.config.smtp import Listener, Role
from services.common.mail.address import HeloName, Mailbox
from services.common.mail.envelope import MailParameters, RecipientParameters
from services.common.mail.ids import message_id, new_session_id
from services.common.mail.trace import TlsSession


@dataclass(frozen=True, slots=True)
class AcceptedRecipient:
    """A recipient that policy accepted, and where its mail goes."""

    mailbox: Mailbox
    parameters: RecipientParameters
    deliver_to: tuple[Mailbox, ...]


@dataclass(slots=True)
class Transaction:
    """What the client said since MAIL."""

    message_id: str
    sender: Mailbox | None
    """None for the null sender, and for one that is no address."""
    parameters: MailParameters
    invalid_sender: str = ""
    """A reverse-path that is no address: policy judges it, nothing can be sent there."""
    recipients: dict[Mailbox, AcceptedRecipient] = field(default_factory=dict)
    """By the forward-path: a recipient given twice is one recipient. Letter case tells recipients
    apart, since only the host of a domain may fold it (RFC 5321 §2.4)."""
    asked: int = 0
    """RCPT commands, refused ones included."""
    destinations: set[str] = field(default_factory=set)
    octets: int = 0
    """What the recipients take up in the records."""
    rules: str | None = None
    """The rules that its recipients fall under, as policy names them; None before the first."""
    envelope_results: tuple[CheckResult, ...] | None = None
    """What policy found out about session and sender; None before its first answer."""

    @property
    def sender_text(self) -> str:
        """What MAIL said, without angle brackets; empty for the null sender."""
        return str(self.sender) if self.sender else self.invalid_sender


@dataclass(slots=True)
class Session:
    """One connection: what is known of the client."""

    listener: Listener
    address: IPv4Address | IPv6Address
    port: int
    id: str = field(default_factory=new_session_id)
    helo: HeloName | None = None
    esmtp: bool = False
    tls: TlsSession | None = None
    account: Mailbox | None = None
    """Who logged in."""
    address_lost: bool = False
    """Whether `address` is thought to be somebody else's: that of a node or a load balancer."""
    transactions: int = 0
    accepted: int = 0
    """Messages that were answered with 250."""

    @property
    def is_submission(self) -> bool:
        """Whether clients log in here."""
        return self.listener.role is Role.SUBMISSION

    def next_message_id(self) -> str:
        """The id of the transaction that begins now."""
        self.transactions += 1
        return message_id(self.id, self.transactions)

    def for_policy(self) -> PolicySession:
        """What policy is told of the session."""
        return PolicySession(
            session_id=self.id,
            client_address=str(self.address),
            client_port=self.port,
            helo=self.helo.value if self.helo else "",
            listener=self.listener.name,
            tls_version=self.tls.version if self.tls else "",
            tls_cipher=self.tls.cipher if self.tls else "",
            authenticated_account=str(self.account) if self.account else "",
            client_addresses_lost=self.address_lost,
        )
