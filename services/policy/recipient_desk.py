"""The verdict on one recipient: where its mail goes, what it costs, what has to be made for it."""

from __future__ import annotations

import logging

from services.common.log import WARNING, event
from services.common.mail.address import AddressError, parse_mailbox
from services.common.mail.reply import RECIPIENT_OK, Reply
from services.common.store import StoreError
from services.policy.action import Action
from services.policy.checks.check import Standing
from services.policy.declared import Declared
from services.policy.directory import AccountDirectory, LimitReached
from services.policy.greylist import Greylist
from services.policy.recipients import DIRECTORY_AWAY, Route, Routing, route
from services.policy.requests import RECIPIENT
from services.policy.rules import Rules, is_exempt
from services.policy.subject import Envelope
from services.policy.verdict import Result, Verdict, decide

LIMIT_REACHED = Reply(450, "4.7.1", "Too many recipients in this hour, please try again later")

GREYLISTED = Reply(451, "4.7.1", "Greylisted, please try again in some minutes")

_log = logging.getLogger(__name__)


class RecipientDesk:
    """Judges recipients."""

    def __init__(
        self,
        rules: Rules,
        directory: AccountDirectory,
        declared: Declared,
        greylist: Greylist,
    ) -> None:
        self._directory = directory
        self._greylist = greylist
        self._declared = declared
        self._aliases = declared.aliases
        self._routing = Routing.of(rules.config, self._aliases)

    async def judge(
        self,
        recipient: str,
        rules: Rules,
        envelope: Envelope,
        results: list[Result],
        *,
        dry_run: bool,
    ) -> tuple[Verdict, Route]:
        """The verdict, whose last result is the recipient's own, and the way of the mail.

        `results` are those on session and sender. Without `dry_run` an account is made where the
        way needs one, and a submission is counted.
        """
        way = await self._route(recipient, rules, envelope)
        verdict = _decide(results, way)
        if verdict.action in (Action.ACCEPT, Action.SPAM):
            vouched = any(result.standing is Standing.VOUCHES for result in results)
            settled = await self._settle(
                way, recipient, rules, envelope, vouched=vouched, dry_run=dry_run
            )
            if settled is not way:
                way, verdict = settled, _decide(results, settled)
        return verdict, way

    async def _route(self, recipient: str, rules: Rules, envelope: Envelope) -> Route:
        aliases = self._declared.aliases
        if self._routing.config is not rules.config or self._aliases is not aliases:
            self._routing, self._aliases = Routing.of(rules.config, aliases), aliases
        try:
            return await route(
                recipient,
                routing=self._routing,
                directory=self._directory,
                authenticated=bool(envelope.session.authenticated_account),
            )
        except StoreError as error:
            return _directory_away(error)

    async def _settle(
        self,
        way: Route,
        recipient: str,
        rules: Rules,
        envelope: Envelope,
        *,
        vouched: bool,
        dry_run: bool,
    ) -> Route:
        """What taking the recipient entails; another route where there is no room for it."""
        try:
            admitted = vouched or await self._is_admitted(
                recipient, rules, envelope, dry_run=dry_run
            )
            if not admitted:
                why = "Greylisting: the client, sender and recipient were not seen together before."
                return Route("greylisted", why, reply=GREYLISTED)
            if not await self._within_limit(envelope, rules, dry_run=dry_run):
                why = "The account has sent to as many recipients as it may in an hour."
                return Route("limit", why, reply=LIMIT_REACHED)
            if way.creates is not None and not dry_run:
                limit = rules.config.recipients.auto_create_limit if way.counted else None
                await self._directory.auto_create(way.creates, limit=limit)
        except LimitReached:
            return await self._route(recipient, rules, envelope)
        except StoreError as error:
            return _directory_away(error)
        return way

    async def _is_admitted(
        self, recipient: str, rules: Rules, envelope: Envelope, *, dry_run: bool
    ) -> bool:
        settings = rules.config.policy.greylist
        if not settings.enabled or is_exempt(rules, envelope):
            return True
        return await self._greylist.admits(envelope, recipient, settings, dry_run=dry_run)

    async def _within_limit(self, envelope: Envelope, rules: Rules, *, dry_run: bool) -> bool:
        """Whether the account that submits may have one more recipient in this hour."""
        limit = rules.config.submission.recipients_per_hour
        account = envelope.session.authenticated_account
        if not account or not limit:
            return True
        try:
            address = parse_mailbox(account, smtputf8=True)
        except AddressError:
            return True
        return await self._directory.may_send(address, limit=limit, count=not dry_run)


def _decide(results: list[Result], way: Route) -> Verdict:
    return decide([*results, _result(way)], accepted=RECIPIENT_OK)


def _result(way: Route) -> Result:
    """A route as a result beside those of the checks."""
    if way.accepted:
        standing, action = Standing.CLEAR, Action.ACCEPT
    else:
        standing = Standing.OBJECTS
        action = Action.REFUSE if way.reply.is_permanent else Action.DEFER
    return Result(RECIPIENT, way.result, standing, action, way.reply, way.explanation, binding=True)


def _directory_away(error: StoreError) -> Route:
    event(_log, WARNING, "the directory cannot be asked", reason=str(error))
    return Route("temperror", "The directory cannot be asked.", reply=DIRECTORY_AWAY)
