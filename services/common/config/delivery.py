"""`delivery`, `mailbox`: where accepted mail goes and how often it is tried."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from services.common.config import shapes
from services.common.config.next_hop import SMTP_PORT, Host
from services.common.config.types import (
    Domain,
    Duration,
    FilePath,
    HostPort,
    Network,
    PositiveDuration,
    Section,
    Size,
)
from services.common.mail.address import parse_mailbox

SUBMISSION_PORT: Final = 587


def _parse_account(value: object) -> str:
    """An address with a domain, as mailboxes are known by it."""
    mailbox = parse_mailbox(value, smtputf8=True) if isinstance(value, str) else None
    if mailbox is None or not mailbox.domain:
        raise ValueError("an address with a domain, for example you@example.org")
    return mailbox.key


Account = Annotated[
    str,
    BeforeValidator(_parse_account),
    shapes.of_text(shapes.ADDRESS, "you@example.org"),
]


class Retry(Section):
    """When to try again, and when to give up."""

    max_retries: Annotated[int, Field(ge=0, le=10_000)] = 24
    """Retries after the first attempt; then the mail is given up and its sender told."""
    interval: PositiveDuration = timedelta(minutes=60)
    """Time between attempts, give or take a little jitter."""
    initial: PositiveDuration | None = None
    """Time before the first retry; it grows by `multiplier` up to `interval`. Blank: `interval`
    from the beginning. `5m` suits destinations that greylist."""
    multiplier: Annotated[float, Field(ge=1, le=100)] = 2
    """How much longer each wait is than the one before, with `initial`."""
    max_age: Duration = timedelta(0)
    """A mail older than this is given up at its next failure, retries left or not. `0`: off."""
    delay_notice_after: Duration = timedelta(hours=4)
    """The sender of a mail that has waited for so long is told so, once. `0`: never."""


class SmarthostServer(Section):
    """A mail exchange that takes mail for everywhere."""

    host: Host = ""
    """Its name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Blank: 25, or 587 with credentials."""
    username: str = ""
    """Blank: no authentication."""
    password_file: FilePath | None = None
    """Read anew at each session. Credentials are sent over TLS only."""
    token_file: FilePath | None = None
    """An OAuth 2 access token instead of a password (AUTH XOAUTH2), read anew at each session."""
    verify_certificate: bool = True
    """With credentials, the host must show a certificate for its name. Without credentials nobody
    is verified."""
    ca_file: FilePath | None = None
    """The authorities that may certify it, in PEM. Blank: those of the system."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.password_file and self.token_file:
            raise ValueError("password_file and token_file exclude each other")
        if bool(self.username) != bool(self.password_file or self.token_file):
            raise ValueError("username and password_file (or token_file) belong together")
        if self.username and not self.host:
            raise ValueError("credentials need a host")
        return self

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or (SUBMISSION_PORT if self.username else SMTP_PORT)


class Smarthost(SmarthostServer):
    """A mail exchange that takes everything that is not local. Without a host there is none, and
    mail goes to the exchanges of its recipients' domains."""

    alternatives: tuple[SmarthostServer, ...] = ()
    """Further ones, tried in this order when the one before cannot be talked to."""
    spf_include: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$", max_length=253)] = ""
    """What the provider says to include in SPF records, for the records that we propose. Blank: the
    nearest domain above the host that has an SPF record."""

    @model_validator(mode="after")
    def _with_hosts(self) -> Self:
        if self.alternatives and not self.host:
            raise ValueError("alternatives need a host to be alternatives to")
        if not all(server.host for server in self.alternatives):
            raise ValueError("an alternative needs a host")
        return self

    @property
    def servers(self) -> tuple[SmarthostServer, ...]:
        """All of them in the order of trying; none without a host."""
        return (self, *self.alternatives) if self.host else ()


class Dkim(Section):
    """Signing of outgoing mail."""

    enabled: bool = False
    """Sign outgoing mail with the active keys of the domain in its From field."""


class Concurrency(Section):
    """How many sessions there are at a time, in one delivery process."""

    initial: Annotated[int, Field(ge=1, le=1000)] = 5
    """With one next hop, until it has shown that it copes with more."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    """With one next hop at most."""
    total: Annotated[int, Field(ge=1, le=1000)] = 400
    """Records in hand at most, for all next hops together."""

    @model_validator(mode="after")
    def _ordered(self) -> Concurrency:
        if not self.initial <= self.limit <= self.total:
            raise ValueError("initial must not exceed limit, nor limit total")
        return self


class Backoff(Section):
    """For how long a next hop is left alone that does not answer or says that it does not want us
    now. All delivery processes follow."""

    initial: PositiveDuration = timedelta(seconds=5)
    """After the first failure; each further one doubles it."""
    limit: PositiveDuration = timedelta(minutes=5)
    """At most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial > self.limit:
            raise ValueError("initial must not exceed limit")
        return self


class Rate(Section):
    """How many mails a next hop is given in a time, by one delivery process. What is beyond waits
    in the queue."""

    messages: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Mails in each `period`, evenly spread. `0`: as many as it takes."""
    period: PositiveDuration = timedelta(minutes=1)
    """What `messages` counts for."""
    exceptions: dict[Domain, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    """Another number for the mail exchanges of some domains."""


class TlsReports(Section):
    """Reports to domains on how encryption with them went (TLSRPT, RFC 8460)."""

    enabled: bool = False
    """Send one each day to the addresses that a domain asks for in its `_smtp._tls` record, if mail
    was sent to its mail exchanges. Each replica reports on its own sessions, and when it ends."""
    sender: Account | None = None
    """Who sends them; should be at a domain that has a DKIM key. Blank: `postmaster` at the first
    of `domains.local`, or at `smtp.hostname` if there is none."""


class AddressFamily(StrEnum):
    """Which addresses of a next hop are used."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    PREFER_IPV4 = "prefer_ipv4"
    PREFER_IPV6 = "prefer_ipv6"


class SourceAddress(Section):
    """The addresses of this machine that sessions come from. Blank: as the system chooses."""

    ipv4: IPv4Address | None = None
    """For next hops with an IPv4 address."""
    ipv6: IPv6Address | None = None
    """For next hops with an IPv6 address."""


class Suppressions(Section):
    """A list of recipients elsewhere that were refused for good: mail for them is not tried but
    returned at once. An entry is made when a mail exchange or smarthost says of this recipient and
    no other that the address does not exist or is disabled (status 5.1.x or 5.2.1), or by
    `gatepost queue suppressions add`."""

    enabled: bool = False
    """Make entries, and heed them."""
    expire_after: Duration = timedelta(days=30)
    """An entry that came from a refusal is forgotten after this. `0`: never."""


class Delivery(Section):
    """Outgoing mail."""

    retry: Retry = Retry()
    smarthost: Smarthost = Smarthost()
    sender_smarthosts: dict[Domain, Smarthost] = {}
    """Others for mail from some domains (of the reverse-path), if it was submitted here."""
    dkim: Dkim = Dkim()
    concurrency: Concurrency = Concurrency()
    rate: Rate = Rate()
    backoff: Backoff = Backoff()
    suppressions: Suppressions = Suppressions()
    tls_reports: TlsReports = TlsReports()
    address_family: AddressFamily = AddressFamily.ANY
    """Which addresses of next hops are used: `any`, `ipv4` or `ipv6` alone, or `prefer_ipv4` and
    `prefer_ipv6`, which try those before the others."""
    source_address: SourceAddress = SourceAddress()
    require_tls: bool = False
    """Outgoing mail must be encrypted; for a next hop that cannot, it waits and is given up."""
    mta_sts: bool = True
    """Follow the MTA-STS policies of domains (RFC 8461): where one is enforced, mail goes to the
    mail exchanges that it names, over TLS with a valid certificate, or waits. Policies are fetched
    over HTTPS."""
    dane: bool = True
    """Follow the TLSA records of mail exchanges (RFC 7672), which come before MTA-STS. Has an
    effect with `dns.validating` only."""
    extra_ca_file: FilePath | None = None
    """Authorities, in PEM, that may certify mail exchanges and MTA-STS policy hosts besides those
    of the system."""
    allowed_networks: tuple[Network, ...] = ()
    """Loopback, private and other special networks that a mail exchange or an MTA-STS policy host
    found in the DNS may be in. Next hops and smarthosts named in this file are allowed by being
    named."""
    helo_name: Host = ""
    """What sessions greet with. Blank: `smtp.hostname`."""


class MailboxKind(StrEnum):
    """The kinds of mailbox."""

    MAILDIR = "maildir"
    LMTP = "lmtp"


class Mailbox(Section):
    """Local mailboxes."""

    kind: MailboxKind = MailboxKind.MAILDIR
    """`maildir`: files below `directory`. `lmtp`: a mail store, at `lmtp`, takes the mail."""
    directory: FilePath = Path("/var/mail/gatepost")
    """Holds a Maildir for each account, `<domain>/<local part>/`, with `.Junk` in it for spam."""
    lmtp: HostPort | None = None
    """Where the mail store listens (RFC 2033), with `kind: lmtp`."""
    quota: Size = 0
    """What a Maildir may hold. Mail beyond it waits, and its sender is told in the end that the
    mailbox is full. `0`: no limit. With `kind: lmtp` the mail store has quotas of its own."""
    quotas: dict[Account, Size] = {}
    """Another quota for some accounts."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.kind is MailboxKind.LMTP and self.lmtp is None:
            raise ValueError("kind lmtp needs lmtp, the host and port of the mail store")
        return self
