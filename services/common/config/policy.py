"""`policy`: what is checked, and what happens when a check objects."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from services.common.config.types import (
    Domain,
    Duration,
    Network,
    PositiveDuration,
    Section,
    SenderEntry,
)


class Action(StrEnum):
    """What to do when a check objects."""

    ACCEPT = "accept"
    SPAM = "spam"
    REFUSE = "refuse"


class OnErrorAction(StrEnum):
    """What to do when a check cannot tell just now, for example because DNS does not answer."""

    ACCEPT = "accept"
    SPAM = "spam"
    DEFER = "defer"


class Unavailable(StrEnum):
    """What the ingress does when policy does not answer."""

    DEFER = "defer"
    ACCEPT = "accept"


class NullSender(StrEnum):
    """Which mail with a blank reverse-path is objected to by `invalid_sender`."""

    ALL = ""
    REPORTS = "reports"


class SpfResult(StrEnum):
    """The results of SPF (RFC 7208 section 2.6) that may count as a mismatch."""

    NONE = "none"
    NEUTRAL = "neutral"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    PERMERROR = "permerror"


class Actions(Section):
    """What to do with mail that a check objects to: `accept`, `spam` or `refuse`."""

    helo_mismatch: Action = Action.SPAM
    """The addresses of the HELO name do not include the client's, or the name is neither a domain
    nor an address literal. RFC 5321 section 4.1.4 forbids refusing mail for this alone."""
    invalid_sender: Action = Action.SPAM
    """The reverse-path is blank or not a valid address: its syntax is wrong, or its domain does
    not exist or takes no mail (null MX). What is no address is sent nothing: its mail goes on
    with a blank reverse-path."""
    spf_mismatch: Action = Action.SPAM
    """SPF does not permit the client; `spf.mismatch_results` says which results count."""
    dkim_invalid: Action = Action.SPAM
    """There is a DKIM signature, and none of them is valid."""
    dkim_missing: Action = Action.ACCEPT
    """There is no DKIM signature."""
    from_mismatch: Action = Action.ACCEPT
    """The address in the From field is not the reverse-path."""
    dmarc_fail: Action = Action.SPAM
    """DMARC fails, and the domain in the From field asks for quarantine or reject."""
    dnsbl_listed: Action = Action.SPAM
    """The client's address is on one of `dnsbl.lists`."""
    sender_unreachable: Action = Action.ACCEPT
    """The sender's mail exchange says that it would not take a reply. Asked only if not `accept`;
    see `callout`."""


class OnError(Section):
    """What to do when a check cannot tell just now: `accept`, `spam` or `defer` (451)."""

    helo_mismatch: OnErrorAction = OnErrorAction.ACCEPT
    invalid_sender: OnErrorAction = OnErrorAction.ACCEPT
    spf_mismatch: OnErrorAction = OnErrorAction.ACCEPT
    dkim_invalid: OnErrorAction = OnErrorAction.ACCEPT
    dmarc_fail: OnErrorAction = OnErrorAction.ACCEPT
    dnsbl_listed: OnErrorAction = OnErrorAction.ACCEPT
    sender_unreachable: OnErrorAction = OnErrorAction.ACCEPT


class ActionOverrides(Section):
    """Actions for one recipient domain; what is not set is as in `policy.actions`."""

    helo_mismatch: Action | None = None
    invalid_sender: Action | None = None
    spf_mismatch: Action | None = None
    dkim_invalid: Action | None = None
    dkim_missing: Action | None = None
    from_mismatch: Action | None = None
    dmarc_fail: Action | None = None
    dnsbl_listed: Action | None = None
    sender_unreachable: Action | None = None


class DomainPolicy(Section):
    """What is different for mail to one recipient domain."""

    actions: ActionOverrides = ActionOverrides()


class Spf(Section):
    """Sender Policy Framework (RFC 7208)."""

    mismatch_results: tuple[SpfResult, ...] = (
        SpfResult.FAIL,
        SpfResult.SOFTFAIL,
        SpfResult.PERMERROR,
    )
    """The results that count as a mismatch."""


class Dmarc(Section):
    """DMARC (RFC 9989)."""

    honour_published: bool = False
    """Do what the domain in the From field asks for: quarantine is `spam`, reject is `refuse`;
    `actions.dmarc_fail` then counts for nothing. RFC 9989 section 5.4 advises against refusing
    mail for this alone, since mailing lists break DMARC."""


class Arc(Section):
    """Authenticated Received Chain (RFC 8617)."""

    trusted_sealers: tuple[Domain, ...] = ()
    """Forwarders, with all domains below them, whose word counts: what they saw pass when a mail
    came to them outweighs our own failure of SPF, DKIM or DMARC."""


class DnsblList(Section):
    """A block list in the DNS (RFC 5782)."""

    zone: Domain
    """Asked for the client's reversed address, as in `1.2.0.192.<zone>`."""
    codes: tuple[Network, ...] = ()
    """The answers that count, for example `127.0.0.2/31`; blank for all."""


class Dnsbl(Section):
    """Block lists."""

    lists: Annotated[tuple[DnsblList, ...], Field(max_length=20)] = ()


class Greylist(Section):
    """Greylisting (RFC 6647): what is seen for the first time is told to come again (451)."""

    enabled: bool = False
    delay: PositiveDuration = timedelta(minutes=5)
    """When it may come again."""
    retry_within: PositiveDuration = timedelta(days=2)
    """When it is too late, and counts as seen for the first time."""


class Callout(Section):
    """How `sender_unreachable` asks: `MAIL FROM:<>` and `RCPT`, never a message."""

    timeout: PositiveDuration = timedelta(seconds=30)
    """For one sender, all its exchanges together. A mail waits no longer than `check_timeout`; the
    answer is then there for the next one."""
    positive_ttl: Duration = timedelta(hours=24)
    """How long it counts that an address takes replies."""
    negative_ttl: Duration = timedelta(hours=2)
    """How long it counts that it does not."""
    rate: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Questions a minute that one domain is asked by one policy process."""
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    allowed_networks: tuple[Network, ...] = ()
    """Loopback, private and other special networks that may be asked all the same."""


class Networks(Section):
    """Client networks that are treated in a special way."""

    trusted: tuple[Network, ...] = ()
    """Mail from these addresses is not judged. It gets no right to relay by this."""


class Policy(Section):
    """The checks."""

    actions: Actions = Actions()
    on_error: OnError = OnError()
    domains: dict[Domain, DomainPolicy] = {}
    """Other actions for some recipient domains."""
    spf: Spf = Spf()
    dmarc: Dmarc = Dmarc()
    arc: Arc = Arc()
    dnsbl: Dnsbl = Dnsbl()
    greylist: Greylist = Greylist()
    callout: Callout = Callout()
    networks: Networks = Networks()
    null_sender: NullSender = NullSender.ALL
    """Blank: `invalid_sender` objects to every mail with a blank reverse-path. `reports`: not to
    delivery and disposition notifications (RFC 3464, RFC 8098) from a HELO name that passes SPF.
    That is known only after DATA, and a `refuse` is then given there."""
    allow: tuple[SenderEntry, ...] = ()
    """Senders whose mail is taken whatever the checks say: networks, domains with all below them,
    addresses. A domain or an address counts only where SPF passes, since anybody can claim one."""
    deny: tuple[SenderEntry, ...] = ()
    """Senders whose mail is refused, in the same forms. `allow` outweighs it."""
    check_timeout: PositiveDuration = timedelta(seconds=20)
    """How long the checks of a mail may take together; what is not done by then cannot be told."""
    unavailable: Unavailable = Unavailable.DEFER
    """When policy does not answer. `defer`: clients come again later (`451`). `accept`: mail is
    taken unjudged for our own domains, and for others from clients that logged in. Whether a
    mailbox exists cannot be told then: what policy would refuse, give to `catch_all`, or know as an
    alias of `accounts_file` is put into a mailbox of its own name. Clients come again later for
    names in `recipients.aliases`, for sub-addresses, and without a login for local parts with `@`,
    `%` or `!`."""
