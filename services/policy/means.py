"""What checks may use, put together once for each configuration."""

from __future__ import annotations

from services.common.dns import Resolver
from services.common.turns import Turns
from services.policy.callout.callouts import Callouts
from services.policy.checks.check import Means
from services.policy.rules import Rules


class MeansSource:
    """The means of the current configuration, for mail and for dry runs."""

    def __init__(
        self, resolver: Resolver, dry_resolver: Resolver, callouts: Callouts, turns: Turns
    ) -> None:
        self._resolver = resolver
        self._dry_resolver = dry_resolver
        self._callouts = callouts
        self._turns = turns
        self._rules: Rules | None = None
        self._means: dict[bool, Means] = {}

    def under(self, rules: Rules, *, dry_run: bool) -> Means:
        """What a check may use under these rules."""
        if self._rules is not rules:
            self._means = {dry: self._make(rules, dry_run=dry) for dry in (False, True)}
            self._rules = rules
        return self._means[dry_run]

    def _make(self, rules: Rules, *, dry_run: bool) -> Means:
        return Means(
            self._dry_resolver if dry_run else self._resolver,
            rules.config.policy,
            rules.config.smtp.hostname,
            self._callouts,
            dry_run,
            rules.allow,
            rules.deny,
            self._turns,
        )
