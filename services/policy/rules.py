"""The configured actions as tables that a verdict is made with, one for each set of overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from ipaddress import IPv4Network, IPv6Network

from services.common.config.model import Config
from services.common.config.policy import DomainPolicy
from services.common.config.source import ConfigSource
from services.common.config.types import Section
from services.common.mail.address import AddressError, parse_mailbox
from services.policy.action import Action
from services.policy.sender_list import SenderList
from services.policy.subject import Envelope, IPAddress
from services.policy.verdict import ActionTable

_ACTIONS = {
    "accept": Action.ACCEPT,
    "spam": Action.SPAM,
    "defer": Action.DEFER,
    "refuse": Action.REFUSE,
}


class Rules:
    """One configuration, prepared for many verdicts."""

    def __init__(self, config: Config) -> None:
        policy = config.policy
        self.config = config
        self.table = ActionTable(_read(policy.actions), _read(policy.on_error))
        """What applies where a recipient's domain has no rules of its own."""
        self._by_domain = _tables(self.table, policy.domains)
        self.allow = SenderList.of(policy.allow)
        self.deny = SenderList.of(policy.deny)
        self._trusted: tuple[IPv4Network | IPv6Network, ...] = policy.networks.trusted

    def table_for_address(self, recipient: str) -> ActionTable:
        """What applies to mail for this recipient; the general table if it is no address."""
        if not self._by_domain:
            return self.table
        try:
            domain = parse_mailbox(recipient, smtputf8=True).domain
        except AddressError:
            return self.table
        return self._by_domain.get(domain, self.table)

    def table_for_all(self, recipients: Iterable[str]) -> ActionTable:
        """What applies to one mail for all of these recipients."""
        found = map(self.table_for_address, recipients)
        tables = list({id(table): table for table in found}.values())
        return reduce(ActionTable.strictest, tables) if tables else self.table

    def trusts(self, address: IPAddress) -> bool:
        """Whether mail from this client is not judged."""
        return any(address in network for network in self._trusted)


def _tables(general: ActionTable, domains: Mapping[str, DomainPolicy]) -> dict[str, ActionTable]:
    """The table of each domain; domains with the same actions share one."""
    shared = {tuple(sorted(general.actions.items())): general}
    tables: dict[str, ActionTable] = {}
    for domain, of_domain in domains.items():
        actions = {**general.actions, **_read(of_domain.actions)}
        own = ActionTable(actions, general.on_error, domain)
        tables[domain] = shared.setdefault(tuple(sorted(actions.items())), own)
    return tables


def is_exempt(rules: Rules, envelope: Envelope) -> bool:
    """Whether this is not mail from outside, which is all that is judged."""
    return bool(envelope.session.authenticated_account) or rules.trusts(envelope.session.address)


class RulesSource:
    """The rules of the current configuration."""

    def __init__(self, source: ConfigSource) -> None:
        self._source = source
        self._rules = Rules(source.current)

    @property
    def current(self) -> Rules:
        """Made anew when the configuration has changed."""
        if self._rules.config is not self._source.current:
            self._rules = Rules(self._source.current)
        return self._rules


def _read(section: Section) -> dict[str, Action]:
    """The actions that a section sets, by check."""
    return {name: _ACTIONS[value] for name, value in section if value is not None}
