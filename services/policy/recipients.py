"""Where mail for a recipient goes: local accounts, aliases, sub-addresses, relay domains.

RFC 5321 §4.5.1 (postmaster without a domain), RFC 2142 (abuse), RFC 5233 (sub-addressing). The
order for a recipient in a local domain: the alias, then the account, then both without the
sub-address; `postmaster` and `abuse` always have a mailbox; then `refuse_unknown`, `auto_create`,
`catch_all`.

Guarantees: nobody relays to a foreign domain without authentication, whatever the address looks
like (a percent hack or a bang path is an ordinary local part here, and no relay domain gets it from
strangers, since its servers trust us and might follow it); an alias that leads in a circle or
nowhere is no reason for a loop or a loss. While the directory cannot be asked, unknown is not
"no such user" but "not now".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.common.config.model import Config
from services.common.mail.address import (
    ROUTE_MARKS,
    AddressError,
    Mailbox,
    folded,
    make_mailbox,
    parse_mailbox,
)
from services.common.mail.reply import (
    BAD_RECIPIENT_SYNTAX,
    RECIPIENT_OK,
    RELAY_DENIED,
    UNKNOWN_RECIPIENT,
    Reply,
)

MAX_ALIAS_DEPTH = 10
MAX_DELIVER_TO = 100
"""Addresses that one recipient may become. More is a mailing list, which is something else."""

RESERVED = frozenset({"postmaster", "abuse"})

CATCH_ALL_MISSING = Reply(451, "4.3.5", "Mail cannot be delivered just now, please try again later")
DIRECTORY_AWAY = Reply(451, "4.3.0", "The recipient cannot be looked up just now")
ALIAS_BROKEN = Reply(451, "4.3.5", "The recipient cannot be resolved just now")


class Directory(Protocol):
    """What routing has to know of the accounts."""

    async def has_account(self, address: Mailbox) -> bool:
        """Whether there is an account of this address."""

    async def may_create(self, domain: str, *, limit: int) -> bool:
        """Whether another account may come to be by itself in this domain in this hour."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where mail for one recipient goes, or why it goes nowhere."""

    result: str
    """`local`, `alias`, `subaddress`, `postmaster`, `relay`, `remote`, `catch_all`, `auto_create`;
    `syntax`, `relay_denied`, `unknown`, `temperror`."""
    explanation: str
    deliver_to: tuple[str, ...] = ()
    reply: Reply = RECIPIENT_OK
    creates: Mailbox | None = None
    """The account that has to be made first."""
    counted: bool = True
    """Whether that account counts towards `recipients.auto_create_limit`."""

    @property
    def accepted(self) -> bool:
        """Whether mail for the recipient is taken."""
        return bool(self.deliver_to)


@dataclass(frozen=True, slots=True)
class Routing:
    """The part of the configuration that recipients are judged by, prepared for look-ups."""

    config: Config
    aliases: dict[str, tuple[Mailbox, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, declared: Mapping[str, tuple[str, ...]] | None = None) -> Routing:
        """Prepare a configuration and the aliases of an accounts file, which come second."""
        aliases = {
            parse_mailbox(name, smtputf8=True).key: tuple(
                parse_mailbox(target, smtputf8=True) for target in targets
            )
            for name, targets in {**(declared or {}), **config.recipients.aliases}.items()
        }
        return cls(config, aliases)

    def is_local(self, domain: str) -> bool:
        """Whether the domain's mailboxes are here."""
        return domain in self.config.domains.local

    def refuses_unknown(self, domain: str) -> bool:
        """`recipients.refuse_unknown`, or the domain's own."""
        own = self.config.recipients.domains.get(domain)
        if own is not None and own.refuse_unknown is not None:
            return own.refuse_unknown
        return self.config.recipients.refuse_unknown

    def auto_creates(self, domain: str) -> bool:
        """`recipients.auto_create`, or the domain's own."""
        own = self.config.recipients.domains.get(domain)
        if own is not None and own.auto_create is not None:
            return own.auto_create
        return self.config.recipients.auto_create

    def catch_all(self, domain: str) -> str:
        """`recipients.catch_all`, or the domain's own; blank for none."""
        own = self.config.recipients.domains.get(domain)
        if own is not None and own.catch_all is not None:
            return own.catch_all
        return self.config.recipients.catch_all

    def without_subaddress(self, mailbox: Mailbox) -> Mailbox | None:
        """`user+tag` as `user`; None where there is no tag."""
        separator = self.config.recipients.subaddress_separator
        if not separator:
            return None
        user, found, _ = mailbox.local_part.partition(separator)
        return make_mailbox(user, mailbox.domain) if user and found else None


async def route(
    recipient: str, *, routing: Routing, directory: Directory, authenticated: bool
) -> Route:
    """Where mail for `recipient` goes. Raises what the directory raises when it cannot answer."""
    try:
        mailbox = parse_mailbox(recipient, smtputf8=True)
    except AddressError as error:
        return Route("syntax", f"Not an address: {error.reason}.", reply=BAD_RECIPIENT_SYNTAX)
    if not mailbox.domain:
        return await _route_postmaster(mailbox, routing, directory)
    if routing.is_local(mailbox.domain):
        return await _Search(routing, directory).route(mailbox)
    return _route_foreign(mailbox, routing, authenticated=authenticated)


def _route_foreign(mailbox: Mailbox, routing: Routing, *, authenticated: bool) -> Route:
    address, domain = str(mailbox), mailbox.domain
    if domain in routing.config.domains.relay:
        if not authenticated and not ROUTE_MARKS.isdisjoint(mailbox.local_part):
            why = f"{domain} is a relay domain, and the local part asks for a route from there."
            return Route("relay_denied", why, reply=RELAY_DENIED)
        return Route("relay", f"{domain} is a relay domain.", (address,))
    if authenticated:
        return Route("remote", "The client has authenticated.", (address,))
    why = f"{domain} is neither local nor a relay domain, and the client has not authenticated."
    return Route("relay_denied", why, reply=RELAY_DENIED)


async def _route_postmaster(mailbox: Mailbox, routing: Routing, directory: Directory) -> Route:
    """RFC 5321 §4.5.1: `<postmaster>` is us."""
    local = routing.config.domains.local
    if not local:
        return Route("unknown", "There is no local domain.", reply=UNKNOWN_RECIPIENT)
    return await _Search(routing, directory).route(make_mailbox(mailbox.local_part, local[0]))


class _Search:
    """The search for the account behind one local recipient."""

    def __init__(self, routing: Routing, directory: Directory) -> None:
        self._routing = routing
        self._directory = directory
        self._seen: set[str] = set()

    async def route(self, mailbox: Mailbox) -> Route:
        known = await self._known(mailbox, depth=0)
        if known is not None:
            return known
        local_part, domain = mailbox.local_part.lower(), mailbox.domain
        if local_part in RESERVED:
            account = make_mailbox(local_part, domain)
            why = f"{local_part} always has a mailbox."
            return Route("postmaster", why, (str(account),), creates=account, counted=False)
        if self._routing.refuses_unknown(domain):
            return _unknown(mailbox, "recipients.refuse_unknown is on")
        if self._routing.auto_creates(domain):
            limit = self._routing.config.recipients.auto_create_limit
            if await self._directory.may_create(domain, limit=limit):
                account = folded(mailbox)
                why = "An account is made for the unknown recipient."
                return Route("auto_create", why, (str(account),), creates=account)
        return await self._catch_all(mailbox)

    async def _catch_all(self, mailbox: Mailbox) -> Route:
        address = self._routing.catch_all(mailbox.domain)
        if not address:
            return _unknown(mailbox, "there is no catch-all account")
        account = parse_mailbox(address, smtputf8=True)
        known = await self._known(account, depth=0)
        if known is None:
            # The operator's mistake is no reason to tell a sender that nobody is here.
            why = f"The catch-all account {address} does not exist."
            return Route("temperror", why, reply=CATCH_ALL_MISSING)
        return Route("catch_all", f"Unknown; goes to {address}.", known.deliver_to)

    async def _known(self, mailbox: Mailbox, *, depth: int) -> Route | None:
        """The route of an account or alias; None if there is neither."""
        for candidate, result in self._candidates(mailbox):
            targets = self._routing.aliases.get(candidate.key)
            # Met again, an alias means the account of the same name: a copy stays here.
            if targets and candidate.key not in self._seen:
                return await self._alias(candidate, targets, depth=depth)
            if await self._directory.has_account(candidate):
                return Route(result, f"{candidate} has an account.", (str(folded(candidate)),))
        return None

    def _candidates(self, mailbox: Mailbox) -> Iterator[tuple[Mailbox, str]]:
        yield mailbox, "local"
        base = self._routing.without_subaddress(mailbox)
        if base is not None:
            yield base, "subaddress"

    async def _alias(
        self, alias: Mailbox, targets: tuple[Mailbox, ...], *, depth: int
    ) -> Route | None:
        """Every target's own route; targets that lead nowhere are left out."""
        self._seen.add(alias.key)
        deliver_to: dict[str, None] = {}
        for target in targets:
            if not self._routing.is_local(target.domain):
                deliver_to[str(target)] = None
            elif depth < MAX_ALIAS_DEPTH:
                known = await self._known(target, depth=depth + 1)
                deliver_to |= dict.fromkeys(known.deliver_to if known else ())
        if not deliver_to or len(deliver_to) > MAX_DELIVER_TO:
            why = f"The alias {alias} leads to {len(deliver_to) or 'no'} accounts."
            return Route("temperror", why, reply=ALIAS_BROKEN)
        return Route("alias", f"{alias} is an alias.", tuple(deliver_to))


def _unknown(mailbox: Mailbox, why: str) -> Route:
    return Route("unknown", f"{mailbox} has no account; {why}.", reply=UNKNOWN_RECIPIENT)
