"""Where mail for a recipient goes while policy is away and `policy.unavailable` is `accept` (pure).

What policy would do is done where the configuration tells it for certain enough; the rest waits for
policy. Guarantees: nobody becomes able to relay by this (RFC 5321 Appendix F.2: a relay domain's
servers trust us, and might follow a route in a local part), and no mail for an alias or a
sub-address ends in a mailbox of that name, which nobody reads. Whether a plain local mailbox
exists is for policy alone to say, so it is taken to exist.
"""

from __future__ import annotations

from functools import lru_cache

from services.common.config.model import Config
from services.common.config.recipients import Recipients
from services.common.mail.address import (
    ROUTE_MARKS,
    AddressError,
    Mailbox,
    folded,
    make_mailbox,
    parse_mailbox,
)


def unjudged_target(mailbox: Mailbox, *, config: Config, authenticated: bool) -> Mailbox | None:
    """Where the mail goes; None if that is for policy to say."""
    domains = config.domains
    if not mailbox.domain:
        if not domains.local:
            return None
        mailbox = make_mailbox(mailbox.local_part, domains.local[0])
    if not authenticated and not ROUTE_MARKS.isdisjoint(mailbox.local_part):
        return None
    if mailbox.domain in domains.local:
        return _account(mailbox, config.recipients)
    return mailbox if authenticated or mailbox.domain in domains.relay else None


def _account(mailbox: Mailbox, recipients: Recipients) -> Mailbox | None:
    separator = recipients.subaddress_separator
    if separator and separator in mailbox.local_part:
        return None
    if mailbox.key in _alias_keys(tuple(recipients.aliases)):
        return None
    try:
        return folded(mailbox)
    except AddressError:
        return None  # Folding can make a local part longer than one may be.


# There may be many, and every recipient is looked up among the same.
@lru_cache(maxsize=2)
def _alias_keys(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(parse_mailbox(name, smtputf8=True).key for name in names)
